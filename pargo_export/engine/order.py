"""What is to be built, with everything resolved, and checked as far as that takes no time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pargo_export.bundle import BatchProfile, Bundle, EngineDevice, Variant
from pargo_export.device.find import find_engine_device
from pargo_export.engine.choose import choose_flavor, choose_variant
from pargo_export.engine.number_formats import find_format_refusal
from pargo_export.engine.options import EngineOptions
from pargo_export.engine.recipe import engine_recipe
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT
from pargo_export.trt.plugins import PluginSet

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """One engine to build.

    Attributes:
        bundle: Where from and where to.
        variant: What is built.
        options: What was asked for.
        tensorrt: What builds.
        device: This machine.
        profiles: Batch sizes.
        name: Name of the engine.
    """

    bundle: Bundle
    variant: Variant
    options: EngineOptions
    tensorrt: TensorRT
    device: EngineDevice
    profiles: tuple[BatchProfile, ...]
    name: str

    @classmethod
    def of(cls, bundle: Bundle, variant: str | None, options: EngineOptions) -> Order:
        """Resolve what was asked for; `variant` may be `None`.

        Raises:
            BundleError: There is no such variant.
            ConfigError: An option does not fit the variant.
            EngineError: The variant cannot be built, or not for these GPUs, or not here.
            MissingDependencyError: The TensorRT that was asked for is not installed.
        """
        chosen = choose_variant(bundle, variant)
        profiles = options.profiles_for(chosen)
        tensorrt = choose_flavor(options.flavor, capabilities=options.capabilities)
        device = find_engine_device()
        own = device.compute_capability
        name = options.engine_name(chosen.name, tensorrt.flavor, own)
        order = cls(bundle, chosen, options, tensorrt, device, profiles, name)
        refusal = find_format_refusal(chosen, order.capabilities)
        if refusal is not None:
            raise EngineError(refusal)
        return order

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities to build for; empty: what TensorRT for RTX builds for by itself."""
        if self.tensorrt.flavor == "tensorrt":
            return (self.device.compute_capability,)
        return self.options.capabilities

    @property
    def has_gpu(self) -> bool:
        """Whether this machine has a GPU, to load the engine on."""
        return bool(self.device.compute_capability)

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights, as paths in the bundle."""
        return self.bundle.manifest.files_of(self.variant.graph)

    @property
    def graph_sha256(self) -> str:
        """Hash of the graph with its weights."""
        return self.bundle.manifest.graph_sha256(self.variant.graph)

    def recipe(self, plugins: PluginSet) -> str:
        """Hash everything that decides the engine."""
        return engine_recipe(
            self.graph_sha256,
            self.tensorrt,
            self.device,
            self.capabilities,
            self.profiles,
            self.options,
            plugins.hashes,
        )

    def check_graph(self) -> Path:
        """Compare the graph and its weights with their hashes, and return its path.

        Raises:
            IntegrityError: They are not what the manifest describes.
        """
        for name in self.graph_files:
            self.bundle.check(name)
        return self.bundle.file(self.variant.graph)

    def describe(self, workspace_bytes: int | None) -> str:
        """Say what is built, for messages."""
        parts = [f"batches {', '.join(map(str, self.profiles))}"]
        if self.capabilities:
            parts.append(f"compute capability {', '.join(self.capabilities)}")
        if workspace_bytes is not None:
            parts.append(f"workspace {workspace_bytes / (1 << 20):.0f} MiB")
        return "; ".join(parts)
