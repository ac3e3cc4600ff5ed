"""TensorRT plugins in the place of the attention nodes: find them, have the parser take them, say what an engine needs.

    with PluginSet.discover(tensorrt, "auto", libraries=(), compute_capabilities=("8.6",)) as plugins:
        plugins.apply(parser)
        parser.parse_from_file(graph)
        plugins.used(network)
        ...                                              # build
        requirements = plugins.requirements(stage_library)

Two kinds: shared libraries, which the bundle carries, and the Python package `pargo_kernels`, which has to be installed
where the engine runs. Loading an engine: `load_requirements`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from typing_extensions import Self

from pargo_export.bundle import PluginRequirement, sha256_file
from pargo_export.errors import EngineError
from pargo_export.trt.api import TensorRTModule
from pargo_export.trt.module import TensorRT
from pargo_export.trt.plugins_library import CreatorName, PluginLibrary, load_library
from pargo_export.trt.plugins_link import find_link_obstacle
from pargo_export.trt.plugins_load import LoadedPlugins, find_plugin_refusal, load_requirements
from pargo_export.trt.plugins_package import (
    OPERATIONS,
    PACKAGE,
    acquire_creators,
    find_compile_obstacle,
    package_sha256,
    release_creators,
)

if TYPE_CHECKING:
    from tensorrt import INetworkDefinition, IPluginV2Layer, IPluginV3Layer, IPluginV3OneCore, OnnxParser

__all__ = [
    "LoadedPlugins",
    "PluginMode",
    "PluginSet",
    "UsedPlugin",
    "carried_path",
    "find_plugin_refusal",
    "load_requirements",
]

PluginMode = Literal["off", "auto", "require"]
_PREFERS_PLUGINS = (
    10,
    7,
)  # first TensorRT whose parser prefers a plugin to a function's body; the module cannot tell
_PACKAGE_CREATORS = tuple(CreatorName(name, "", "1") for name in OPERATIONS)


@dataclass(frozen=True)
class UsedPlugin:
    """A layer of a network that is a plugin.

    Attributes:
        layer: Name of the layer, that of the node.
        creator: What made it.
    """

    layer: str
    creator: CreatorName

    @property
    def operator(self) -> str:
        """The node's operator, for example `pargo::PartialGlobalAttention`."""
        name = self.creator.name
        return f"pargo::{name}" if name in OPERATIONS else name


def carried_path(library: Path) -> str:
    """Return the path in a bundle of a plugin library that an engine needs; that of a carried one is its own.

    Raises:
        OSError: The library cannot be read.
    """
    prefix = f"{sha256_file(library)[:16]}-"
    return f"engines/plugins/{prefix}{library.name.removeprefix(prefix)}"


@dataclass
class PluginSet:
    """The plugins of one build, registered with TensorRT. Use `PluginSet.discover`, as a context manager.

    Attributes:
        tensorrt: The TensorRT that they are registered with.
        mode: `off`: no plugin but those of the libraries; `auto`: those of `pargo_kernels` where they can be used;
            `require`: as `auto`, but an error where they cannot, or where no layer becomes one.
        libraries: Libraries that were named; each has to make a layer, whatever the mode.
        package_sha256: Hash of the Python package's sources; empty if its plugins are not registered.
        notes: Why plugins were not taken, for the reader of the sidecar.
    """

    tensorrt: TensorRT
    mode: PluginMode
    libraries: tuple[PluginLibrary, ...] = ()
    package_sha256: str = ""
    notes: tuple[str, ...] = ()
    _found: tuple[UsedPlugin, ...] = field(default=(), repr=False)
    _is_closed: bool = field(default=False, repr=False)

    @classmethod
    def discover(
        cls,
        tensorrt: TensorRT,
        mode: PluginMode,
        libraries: Sequence[Path] = (),
        *,
        compute_capabilities: Sequence[str] = (),
    ) -> PluginSet:
        """Find and register plugins for a build.

        Args:
            tensorrt: Where to register.
            mode: See the class. Libraries take the place of `pargo_kernels`: its plugins have the names that those of
                a library have.
            libraries: Shared libraries with plugin creators.
            compute_capabilities: What the engine is built for, as `"8.6"`; empty: the GPU of this machine.

        Raises:
            EngineError: A library is of no use, or plugins are required and cannot be had.
        """
        if mode == "off" and not libraries:
            return cls(tensorrt, mode)
        obstacle = find_link_obstacle(tensorrt)
        if libraries:
            if obstacle is not None:
                raise EngineError(f"no plugin can be used: {obstacle}")
            return cls(tensorrt, mode, tuple(load_library(tensorrt, path) for path in libraries))
        capability = None
        if obstacle is None and len(compute_capabilities) > 1:
            obstacle = (
                f"their kernels are machine code for one GPU, asked for were {', '.join(compute_capabilities)}; "
                "build an engine for each"
            )
        if obstacle is None:
            capability = int(compute_capabilities[0].replace(".", "")) if compute_capabilities else None
            obstacle = find_compile_obstacle(capability)
        if obstacle is None:
            sha256 = package_sha256()
            acquire_creators(tensorrt, capability)
            return cls(tensorrt, mode, package_sha256=sha256)
        reason = f"the plugins of pargo_kernels cannot be used: {obstacle}"
        if mode == "require":
            raise EngineError(reason)
        return cls(tensorrt, mode, notes=(f"attention without plugins; {reason}",))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Deregister the package's plugins, if nothing else needs them; libraries stay, they cannot be unloaded."""
        if self.package_sha256 and not self._is_closed:
            self._is_closed = True
            release_creators(self.tensorrt)

    @property
    def creators(self) -> tuple[CreatorName, ...]:
        """Creators that may take over nodes."""
        package = _PACKAGE_CREATORS if self.package_sha256 else ()
        return (*package, *(creator for library in self.libraries for creator in library.creators))

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hashes of the code whose plugins may get into the engine: a part of the engine's recipe."""
        package = (self.package_sha256,) if self.package_sha256 else ()
        return (*package, *(library.sha256 for library in self.libraries))

    @property
    def needs_functions_removed(self) -> bool:
        """Whether this parser takes a function's body even if there is a plugin: TensorRT before 10.7."""
        flag = hasattr(self.tensorrt.module.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE")
        version = tuple(int(part) for part in self.tensorrt.version.split(".")[:2])
        is_old = self.tensorrt.flavor == "tensorrt" and version < _PREFERS_PLUGINS
        return bool(self.creators) and not flag and is_old

    def apply(self, parser: OnnxParser) -> None:
        """Have an ONNX parser take plugins rather than functions' bodies, where it has to be told.

        TensorRT from 10.15 on, and TensorRT for RTX, have a flag; 10.7 to 10.14 always take the plugin; for older ones
        see `needs_functions_removed`.

        Args:
            parser: The `OnnxParser`, before it parses.
        """
        flag = getattr(self.tensorrt.module.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE", None)
        if flag is not None and self.creators:
            parser.set_flag(flag)

    def remove_functions(self, model: Any) -> int:
        """Delete the bodies of the functions that the plugins take over; changes the model in place.

        Args:
            model: An `onnx.ModelProto`, to be parsed by a TensorRT that `needs_functions_removed`.

        Returns:
            The number of functions that were deleted.
        """
        names = {creator.name for creator in self.creators}
        taken = [index for index, function in enumerate(model.functions) if function.name in names]
        for index in reversed(taken):
            del model.functions[index]
        return len(taken)

    def used(self, network: INetworkDefinition) -> tuple[UsedPlugin, ...]:
        """Find the plugins in a parsed network, and remember them for `requirements`.

        Args:
            network: The `INetworkDefinition`.

        Returns:
            One for each plugin layer.

        Raises:
            EngineError: Plugins are required and there is none, a library that was named makes no layer, or a layer is
                of a plugin that this set does not know.
        """
        self._found = _plugin_layers(self.tensorrt.module, network)
        known = {creator.name for creator in self.creators}
        foreign = sorted({str(item.creator) for item in self._found if item.creator.name not in known})
        if foreign:
            raise EngineError(
                f"the network has plugins of other code in this process, {', '.join(foreign)}, which the engine could "
                "not name as its requirement; build in a new process, or give their library with --plugin"
            )
        for library in self.libraries:
            if not self._used_of(library.creators):
                raise EngineError(
                    f"no layer is made by {library.path}, whose plugins are {', '.join(map(str, library.creators))}; "
                    f"expected one named as an operator of the graph, {' or '.join(OPERATIONS)}, in the empty "
                    "namespace. Leave out --plugin, or export the bundle with --attention fused"
                )
        if self.mode == "require" and not self._found:
            raise EngineError(
                "plugins are required, but no layer of the network is one: the graph has no nodes "
                f"{' or '.join(OPERATIONS)}. Export the bundle with --attention fused, or build without --plugins"
            )
        return self._found

    def requirements(self, stage_library: Callable[[Path], str]) -> tuple[PluginRequirement, ...]:
        """Return what the engine needs where it runs, for its record.

        Args:
            stage_library: Copies a library into the bundle, to `carried_path`, and returns that path.

        Raises:
            EngineError: A library changed since it was loaded.
        """
        requirements = []
        operators = self._used_of(_PACKAGE_CREATORS)
        if self.package_sha256 and operators:
            requirements.append(
                PluginRequirement(
                    operators=operators, kind="python", sha256=self.package_sha256, package=PACKAGE
                )
            )
        for library in self.libraries:
            if not (operators := self._used_of(library.creators)):
                continue
            if sha256_file(library.path) != library.sha256:
                raise EngineError(
                    f"the plugin library {library.path} changed while the engine was built; build again"
                )
            file = stage_library(library.path)
            requirements.append(
                PluginRequirement(operators=operators, kind="library", file=file, sha256=library.sha256)
            )
        return tuple(requirements)

    def _used_of(self, creators: Sequence[CreatorName]) -> tuple[str, ...]:
        """Operators that creators took over, once each."""
        names = {creator.name for creator in creators}
        return tuple(sorted({item.operator for item in self._found if item.creator.name in names}))


def _plugin_layers(trt: TensorRTModule, network: INetworkDefinition) -> tuple[UsedPlugin, ...]:
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.PLUGIN_V3:
            layer.__class__ = trt.IPluginV3Layer  # the bindings hand out the base class
            plugin = cast("IPluginV3Layer", layer).plugin
            core: IPluginV3OneCore = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
            name = CreatorName(core.plugin_name, core.plugin_namespace, core.plugin_version)
        elif layer.type in {getattr(trt.LayerType, kind, None) for kind in ("PLUGIN", "PLUGIN_V2")}:
            layer.__class__ = trt.IPluginV2Layer
            old = cast("IPluginV2Layer", layer).plugin
            name = CreatorName(old.plugin_type, old.plugin_namespace, old.plugin_version)
        else:
            continue
        found.append(UsedPlugin(layer.name, name))
    return tuple(found)
