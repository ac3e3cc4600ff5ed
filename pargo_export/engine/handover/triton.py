"""A model repository for Triton Inference Server, with an engine or with the ONNX graph."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from pargo_export.bundle import VARIANT_NAME, BatchProfile, atomic_write
from pargo_export.engine.handover.directory import Handover, finish, output_directory
from pargo_export.engine.handover.source import Source, find_source, needed_gpu
from pargo_export.engine.handover.triton_config import TritonModel
from pargo_export.errors import ConfigError, EngineError
from pargo_export.signature import TensorSpec

__all__ = ["hand_over_triton"]

_README = """# {name}: model repository for Triton Inference Server

    docker run --rm {gpus}-p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD:/models" {preload}\\
      nvcr.io/nvidia/tritonserver:YY.MM-py3 tritonserver --model-repository=/models

    curl localhost:8000/v2/models/{name}/config

`YY.MM` is a release of the server{release}.

The model takes {inputs} and gives {outputs}. Pictures are not prepared by it: {preprocessing}; with
`pargo_export.preprocessing` as in the bundle, or in a model of your own in front of this one.
"""


def hand_over_triton(
    bundle: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    variant: str | None = None,
    engine: str | None = None,
    name: str | None = None,
    num_instances: int = 1,
    queue_delay_us: int = 1000,
    warmup: bool = True,
    force: bool = False,
) -> Handover:
    """Write a model repository with one model.

    Args:
        bundle: The bundle.
        directory: The repository to make.
        variant: Whose graph is served by the ONNX Runtime backend.
        engine: An engine of TensorRT, served by the TensorRT backend instead.
        name: Name of the model; by default that of the engine or the variant.
        num_instances: Instances of the model on each GPU, or on the CPU.
        queue_delay_us: Microseconds that a request may wait to be batched with others.
        warmup: Run the largest batch once before the model is ready.
        force: Replace a directory that a hand-over wrote before.

    Raises:
        BundleError: There is no such variant, or a file of the bundle is not what the manifest says.
        ConfigError: A choice is out of range.
        EngineError: The engine is none that Triton runs, or the directory cannot be written.
    """
    source = find_source(bundle, variant=variant, engine=engine)
    model = _model(source, name or source.name, num_instances, queue_delay_us, warmup=warmup)
    configuration = model.to_pbtxt()
    path = Path(directory)
    with output_directory(path, source, force=force) as temporary:
        version = temporary / model.name / "1"
        version.mkdir(parents=True)
        atomic_write(temporary / model.name / "config.pbtxt", configuration.encode())
        if source.engine is None:
            source.copy_graph(version, "model.onnx")
        else:
            source.copy_engine(version / "model.plan")
        libraries = _copy_plugins(source, temporary / model.name)
        return finish(
            temporary, path, "triton", source, readme=_readme(source, model, libraries), notes=_notes(source)
        )


def _model(
    source: Source, name: str, num_instances: int, queue_delay_us: int, *, warmup: bool
) -> TritonModel:
    if not re.fullmatch(VARIANT_NAME, name):
        raise ConfigError(
            f"name is {name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
        )
    if num_instances < 1 or queue_delay_us < 0:
        raise ConfigError(
            f"num_instances is {num_instances} and queue_delay_us {queue_delay_us}; expected at least 1 and 0"
        )
    variant, engine = source.variant, source.engine
    if engine is None:
        profiles = (BatchProfile(min_batch=1, opt_batch=1, max_batch=variant.max_batch),)
        on_gpu = variant.target != "cpu"
        return TritonModel(
            name, "onnxruntime", variant, profiles, on_gpu, num_instances, queue_delay_us, warmup
        )
    if engine.flavor != "tensorrt":
        raise EngineError(
            f"engine {engine.name!r} is of TensorRT for RTX, which Triton does not run; serve the graph instead: leave "
            f"--engine out and give --variant {variant.name}"
        )
    packages = [item.package for item in engine.plugins if item.kind == "python"]
    if packages:
        raise EngineError(
            f"engine {engine.name!r} needs plugins that {', '.join(packages)} registers in Python, which Triton cannot "
            "load; build it with --plugins off, or with a plugin library"
        )
    return TritonModel(
        name, "tensorrt", variant, engine.profiles, True, num_instances, queue_delay_us, warmup
    )


def _copy_plugins(source: Source, directory: Path) -> list[str]:
    """Copy the plugin libraries of an engine, and return their paths in the repository."""
    files = [item.file for item in source.engine.plugins if item.file] if source.engine else []
    for file in files:
        (directory / "plugins").mkdir(exist_ok=True)
        checked = source.bundle.check(file)
        shutil.copyfile(checked, directory / "plugins" / checked.name)
    return [f"{directory.name}/plugins/{Path(file).name}" for file in files]


def _notes(source: Source) -> tuple[str, ...]:
    engine = source.engine
    if engine is None:
        return ("the graph is served by the ONNX Runtime backend",)
    return (f"needs TensorRT {engine.tensorrt_version} and {needed_gpu(engine)}",)


def _readme(source: Source, model: TritonModel, libraries: list[str]) -> str:
    engine, spec = source.engine, source.bundle.manifest.preprocessing
    inside = [f"/models/{path}" for path in libraries]
    release = (
        f" with TensorRT {engine.tensorrt_version}: an engine runs in the version that built it"
        if engine
        else ""
    )
    return _README.format(
        name=model.name,
        gpus="--gpus=1 " if model.on_gpu else "",
        preload=f"-e LD_PRELOAD={':'.join(inside)} " if inside else "",
        release=release,
        inputs=_tensors(source.variant.signature.inputs),
        outputs=_tensors(source.variant.signature.outputs),
        preprocessing=f"mode {spec.mode!r}, mean {list(spec.mean)}, deviation {list(spec.std)}"
        if source.variant.input == "float"
        else f"mode {spec.mode!r}, values 0 to 255",
    )


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"`{spec.name}` {spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in specs)
