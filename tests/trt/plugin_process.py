"""Plugins in the real registry, parser and builder of TensorRT for RTX, in a process of its own.

`plugin_process.py SCENARIO ARGUMENT...` prints what happened as JSON. A process of its own: a registry belongs to its
process, kernels must be compiled for real while other tests interpret them, and a parser without its library dies.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from two_attentions import two_attentions

from pargo_export.bundle import Bundle, PluginRequirement
from pargo_export.errors import PargoExportError
from pargo_export.trt import TensorRT, load_tensorrt
from pargo_export.trt.plugins import PluginSet, carried_path, load_requirements
from pargo_export.trt.plugins_library import registered_creators
from pargo_export.trt.plugins_package import acquire_creators, keep_creators, release_creators

OPERATIONS = {"PartialGlobalAttention", "BlockDiagonalAttention"}


def parse(tensorrt: TensorRT, plugins: PluginSet, *, plain: bool = False) -> tuple[Any, Any, Any]:
    """Return builder, parser and network of the graph of two nodes, `plain`: of one that has neither."""
    builder = tensorrt.module.Builder(tensorrt.logger)
    network = builder.create_network(1 << int(tensorrt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.module.OnnxParser(network, tensorrt.logger)
    plugins.apply(parser)
    model = two_attentions()
    if plain:
        del model.graph.node[:]
        model.graph.node.add(op_type="Identity", name="copy", input=["key"], output=["mixed"])
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 18
    assert parser.parse(model.SerializeToString())
    return builder, parser, network


def build(tensorrt: TensorRT, plugins: PluginSet, folder: Path) -> dict[str, Any]:
    """Build for compute capability 8.9 and return what an engine's record would say."""
    builder, parser, network = parse(tensorrt, plugins)
    used = plugins.used(network)
    trt = tensorrt.module
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = [tuple(batch if size < 0 else size for size in tensor.shape) for batch in (1, 2, 4)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    plan = builder.build_serialized_network(network, config)

    def stage(library: Path) -> str:
        relative = carried_path(library)
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, folder / relative)
        return relative

    result = {
        "used": [[item.layer, item.operator] for item in used],
        "layers": network.num_layers,
        "engine_bytes": None if plan is None else len(bytes(plan)),
        "requirements": [item.model_dump(mode="json") for item in plugins.requirements(stage)],
        "hashes": plugins.hashes,
    }
    del network, parser, builder
    return result


def ours(tensorrt: TensorRT) -> list[str]:
    """Return which attention plugins the registry has."""
    return sorted(OPERATIONS & {creator.name for creator in registered_creators(tensorrt)})


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    """Return the error that a call ends with."""
    try:
        call(*arguments, **options)
    except PargoExportError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def library(tensorrt: TensorRT, path: str, other: str, folder: str) -> dict[str, Any]:
    """Use a library, and then what contradicts it in the same process."""
    plugins = PluginSet.discover(tensorrt, "auto", [Path(path)])
    result = build(tensorrt, plugins, Path(folder))
    again = PluginSet.discover(tensorrt, "auto", [Path(path)])
    unused = refusal(plugins.used, parse(tensorrt, plugins, plain=True)[2])
    plugins.used(parse(tensorrt, plugins)[2])
    changed = Path(path).with_suffix(".new")
    changed.write_bytes(Path(path).read_bytes() + b"changed")
    changed.replace(path)  # another file: the old one is in use
    off = PluginSet.discover(tensorrt, "off")
    return result | {
        "again": again.hashes == plugins.hashes,
        "unused": unused,
        "changed": refusal(plugins.requirements, str),
        "name_taken": refusal(PluginSet.discover, tensorrt, "auto", [Path(other)]),
        "package": refusal(PluginSet.discover, tensorrt, "require", compute_capabilities=["8.9"]),
        "off_layers": len(off.used(parse(tensorrt, off)[2])),
        "foreign": refusal(off.used, parse(tensorrt, again)[2]),
    }


def package(tensorrt: TensorRT, folder: str) -> dict[str, Any]:
    """Use the Python package for two GPUs in turn, then load with it."""
    result: dict[str, Any] = {"before": ours(tensorrt)}
    with PluginSet.discover(tensorrt, "require", compute_capabilities=["8.9"]) as plugins:
        result |= build(tensorrt, plugins, Path(folder))
        result["open"] = ours(tensorrt)
        result["required"] = refusal(plugins.used, parse(tensorrt, plugins, plain=True)[2])
        result["meanwhile"] = refusal(PluginSet.discover, tensorrt, "require", compute_capabilities=["8.6"])
        with PluginSet.discover(tensorrt, "auto", compute_capabilities=["8.9"]):
            pass
        result["open_still"] = ours(tensorrt)
    plugins.close()
    result["closed"] = ours(tensorrt)
    several = PluginSet.discover(tensorrt, "auto", compute_capabilities=["8.6", "8.9"])
    result["several"] = [several.creators, several.notes, ours(tensorrt)]
    creators = keep_creators(tensorrt)
    acquire_creators(tensorrt, 86)
    release_creators(tensorrt)
    result["kept"] = [len(creators), ours(tensorrt)]
    return result


def load(tensorrt: TensorRT, bundle: str, requirements: str) -> dict[str, Any]:
    """Register what an engine needs."""
    needed = [PluginRequirement(**values) for values in json.loads(requirements)]
    loaded = load_requirements(tensorrt, needed, Bundle.open(bundle))
    again = load_requirements(tensorrt, needed, Bundle.open(bundle))
    return {
        "creators": ours(tensorrt),
        "libraries": [str(item.path) for item in loaded.libraries],
        "num_python": len(loaded.creators),
        "again": again == loaded,
    }


def discover(tensorrt: TensorRT, mode: str, *libraries: str) -> dict[str, Any]:
    """Discover for 8.9 and say what came of it."""

    def find() -> PluginSet:
        return PluginSet.discover(tensorrt, mode, [*map(Path, libraries)], compute_capabilities=["8.9"])

    reason = refusal(find)
    plugins = find() if reason == "nothing was refused" else None
    layers = len(plugins.used(parse(tensorrt, plugins)[2])) if plugins else None
    return {"refused": reason, "notes": plugins.notes if plugins else (), "layers": layers}


def engine(tensorrt: TensorRT, bundle: str, variant: str, mode: str, *libraries: str) -> dict[str, Any]:  # noqa: ARG001
    """Build an engine into a bundle, twice, and return its record and its sidecar."""
    from pargo_export.engine.build import build_engine

    options = {
        "flavor": "rtx",
        "capabilities": ("8.9",),
        "plugins": mode,
        "plugin_libraries": tuple(map(Path, libraries)),
    }
    result = build_engine(bundle, variant, name="with-plugins", **options)
    again = build_engine(bundle, variant, name="with-plugins", **options)
    without = build_engine(bundle, variant, name="without", flavor="rtx") if libraries else result
    return {
        "record": result.engine.model_dump(mode="json"),
        "sidecar": json.loads(result.bundle.check(result.engine.sidecar).read_text()),
        "reused": [result.reused, again.reused],
        "problems": [check.reason for check in result.bundle.verify() if not check.ok],
        "without": without.engine.model_dump(mode="json"),
    }


if __name__ == "__main__":
    scenario = {item.__name__: item for item in (library, package, load, discover, engine)}[sys.argv[1]]
    sys.stdout.write(json.dumps(scenario(load_tensorrt("rtx"), *sys.argv[2:]), default=str))
