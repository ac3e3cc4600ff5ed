"""Engines of TensorRT and of TensorRT for RTX, on the GPU that they were built for."""

from __future__ import annotations

import functools

from pargo_export.bundle import Bundle, Engine, Flavor, Variant
from pargo_export.device.cuda_driver import find_driver_obstacle
from pargo_export.device.find import find_engine_device
from pargo_export.errors import BackendError
from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.runner import Runner, RunnerOptions
from pargo_export.runtime.tensorrt.driver import find_bindings_obstacle, load_cuda
from pargo_export.trt import find_obstacle, load_tensorrt
from pargo_export.trt.preflight import find_refusal

__all__ = ["TENSORRT", "TENSORRT_RTX"]


def _open(flavor: Flavor, bundle: Bundle, variant: Variant, options: RunnerOptions) -> Runner:
    from pargo_export.runtime.tensorrt.runner import EngineRunner

    engine = bundle.manifest.engines.get(options.engine or "")
    if engine is None or engine.variant != variant.name or engine.flavor != flavor:
        raise BackendError(
            f"there is no engine {options.engine!r} of variant {variant.name!r} for {flavor}; "
            f"`pargo-export inspect {bundle.path}` lists the engines"
        )
    return EngineRunner(
        bundle,
        engine,
        options,
        device=find_engine_device(),
        tensorrt=load_tensorrt(flavor),
        cuda=load_cuda(),
        accept_failed=options.accept_failed,
    )


def _find_obstacle(flavor: Flavor) -> str | None:
    if obstacle := find_driver_obstacle():
        return f"{obstacle}; on a CPU use the backend 'onnxruntime' or 'openvino'"
    return find_obstacle(flavor) or find_bindings_obstacle()


def _find_variant_obstacle(variant: Variant) -> str | None:
    if variant.quantization is not None and variant.quantization.dialect == "cpu":
        return (
            "it was quantized for CPUs, with zero points that TensorRT refuses; make a variant with "
            "`pargo-export quantize BUNDLE --int8 --target cuda` (or orin, thor, rtx)"
        )
    return None


def _find_engine_refusal(flavor: Flavor, bundle: Bundle, engine: Engine, accept_failed: bool) -> str | None:
    return find_refusal(
        engine,
        bundle.manifest,
        device=find_engine_device(),
        tensorrt=load_tensorrt(flavor),
        bundle=bundle.path,
        accept_failed=accept_failed,
    )


_PRECISIONS = ("float16", "bfloat16", "int8", "int8_weight_only", "fp8", "float32")
_UNSUPPORTED = {"nvfp4": "this version builds no engines in NVFP4"}

TENSORRT = Backend(
    name="tensorrt",
    device="CUDA GPU",
    precisions=_PRECISIONS,
    unsupported=_UNSUPPORTED,
    targets=("orin", "thor", "cuda", "rtx"),
    find_obstacle=functools.partial(_find_obstacle, "tensorrt"),
    find_variant_obstacle=_find_variant_obstacle,
    flavor="tensorrt",
    find_engine_refusal=functools.partial(_find_engine_refusal, "tensorrt"),
    open=functools.partial(_open, "tensorrt"),
)

TENSORRT_RTX = Backend(
    name="tensorrt-rtx",
    device="CUDA GPU",
    precisions=_PRECISIONS,
    unsupported=_UNSUPPORTED,
    targets=("rtx", "cuda"),
    find_obstacle=functools.partial(_find_obstacle, "rtx"),
    find_variant_obstacle=_find_variant_obstacle,
    flavor="rtx",
    find_engine_refusal=functools.partial(_find_engine_refusal, "rtx"),
    open=functools.partial(_open, "rtx"),
)
