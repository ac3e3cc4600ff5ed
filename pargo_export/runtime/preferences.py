"""What an automatic choice prefers: one list of backends with kinds of variants, the best first."""

from __future__ import annotations

from pargo_export.bundle import Variant

__all__ = ["PREFERENCES", "kind_of"]

_INT8_FOR_CPUS = "int8 for CPUs"
_MEASURED_FP8 = "fp8, measured"
_KINDS_OF_ENGINES = ("float16", "bfloat16", _MEASURED_FP8, "int8", "int8_weight_only", "fp8", "float32")

# An engine before everything else: somebody built it for this very device. Among engines measured times decide; without
# them the exact floats come before what is quantized, which is not always faster (docs/tensorrt.md). After them
# a GPU before the CPU, and there the kernels of this project before ONNX Runtime's. FP8 is the fastest (figures in
# docs/performance.md), but it differs visibly from float16: its evidence must have passed. INT8 products of the library
# are slower than float16 ones on Hopper. On the CPU by measured time of the full-size model (2 cores with
# AVX512-VNNI, one image):
# int8 for CPUs 0.8 s in OpenVINO and 1.0 s in ONNX Runtime; float32 2.5 s in both; float16 2.6 s in OpenVINO, which
# widens the weights once, and 5.5 s in ONNX Runtime. What follows was made for GPUs or to save memory, and runs here
# without gain. Only what ranks before float32 may differ from it visibly: its evidence must have passed.
PREFERENCES: tuple[tuple[str, str], ...] = (
    *((backend, kind) for backend in ("tensorrt", "tensorrt-rtx") for kind in _KINDS_OF_ENGINES),
    ("cuda", _MEASURED_FP8),
    ("cuda", "float16"),
    ("cuda", "bfloat16"),
    ("cuda", "int8"),
    ("cuda", "fp8"),
    ("onnxruntime-cuda", "float16"),
    ("onnxruntime-cuda", "float32"),
    ("onnxruntime-cuda", "bfloat16"),
    ("onnxruntime-cuda", "int8"),
    ("onnxruntime-cuda", _INT8_FOR_CPUS),
    ("openvino", _INT8_FOR_CPUS),
    ("onnxruntime", _INT8_FOR_CPUS),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "float16"),
    ("onnxruntime", "float16"),
    ("openvino", "int8_weight_only"),
    ("onnxruntime", "int8_weight_only"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
    ("openvino", "bfloat16"),
    ("openvino-bf16", _INT8_FOR_CPUS),
    ("openvino-bf16", "float32"),
    ("openvino-bf16", "bfloat16"),
    ("openvino-bf16", "float16"),
    ("openvino-bf16", "int8_weight_only"),
    ("openvino-bf16", "int8"),
)


def kind_of(variant: Variant) -> str:
    """Return the precision of a variant, or one of two kinds that are preferred to their precision.

    `"int8 for CPUs"` is one in the dialect of CPUs with float32 around the integers, whose evidence passed: other ones
    run on a CPU as well, but without gain (float16 is converted back and forth), or nobody knows how well.
    `"fp8, measured"` is one whose evidence passed.
    """
    quantization, evidence = variant.quantization, variant.evidence
    if variant.precision == "fp8" and evidence is not None and evidence.passed:
        return _MEASURED_FP8
    if (
        variant.precision == "int8"
        and quantization is not None
        and (quantization.dialect, quantization.float_precision) == ("cpu", "float32")
        and evidence is not None
        and evidence.passed
    ):
        return _INT8_FOR_CPUS
    return variant.precision
