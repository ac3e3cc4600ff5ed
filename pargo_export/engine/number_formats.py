"""Which GPU multiplies in which number format: known before a build that would fail minutes later.

Source: NVIDIA's support matrices of TensorRT and TensorRT for RTX; for 7.5, 8.6, 8.9 and 12.0 confirmed by builds
("Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3").
"""

from __future__ import annotations

from collections.abc import Iterable

from pargo_export.bundle import Variant
from pargo_export.device.gpu import MIN_CAPABILITY

__all__ = ["find_format_refusal"]

# Which GPUs have it, and what else to do.
_ADVICE: dict[str, tuple[str, str]] = {
    "fp8": (
        "RTX 40 (8.9), H100 (9.0), Thor (11.0), RTX 50 (12.0)",
        "choose an INT8 variant: pargo-export quantize BUNDLE --int8 --target orin",
    ),
    "nvfp4": (
        "B200 (10.0), Thor (11.0), RTX 50 (12.0)",
        "choose an INT8 or FP8 variant: pargo-export quantize BUNDLE --int8 --target cuda",
    ),
    "bfloat16": (
        "Ampere and later (from 8.0 on)",
        "choose an FP16 variant: pargo-export onnx CHECKPOINT -o BUNDLE --precision fp16 --target cuda",
    ),
}
_TITLES = {"fp8": "FP8", "nvfp4": "FP4", "bfloat16": "BF16"}


def find_format_refusal(variant: Variant, capabilities: Iterable[str]) -> str | None:
    """Return why a variant cannot be built for these compute capabilities, with the mend; `None` if it can.

    Args:
        variant: Its precision, and that of what is not quantized.
        capabilities: For example `("8.6", "8.9")`; empty: unknown, nothing is refused.
    """
    for name in (variant.precision, variant.float_precision):
        if name not in _ADVICE:
            continue
        available, mend = _ADVICE[name]
        without = [item for item in capabilities if _numbers(item) < MIN_CAPABILITY[name]]
        if without:
            return (
                f"variant {variant.name!r} computes in {_TITLES[name]}, which compute capability {', '.join(without)} does "
                f"not have; it is there on {available}; {mend}"
            )
    return None


def _numbers(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)
