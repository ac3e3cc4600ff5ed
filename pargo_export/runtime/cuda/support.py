"""What the backend cannot run, and why; without PyTorch, so that it can be asked anywhere."""

from __future__ import annotations

from collections.abc import Collection

from pargo_export.bundle import Variant
from pargo_export.config import ProjectorConfig, TowerConfig, VisionConfig

__all__ = ["find_missing_rewrite", "find_tower_refusal", "find_variant_refusal"]

# Rewrites that the program is written for; without the others it runs as well, only slower.
_ENCODER = ("fold-class-token", "half-rotation-rope", "merge-qkv", "merge-swiglu")
_PROJECTOR = ("merge-cross-kv", "precompute-first-layer")


def find_missing_rewrite(
    component: str, rewrites: Collection[str], projector: ProjectorConfig | None = None
) -> str | None:
    """Return which rewrite the weights lack, and how to get it; `None` if they are as they must be.

    Args:
        component: Of the variant.
        rewrites: Those that were applied.
        projector: The projector; `None` leaves its rewrites to be checked later.
    """
    wanted: list[str] = [] if component == "projector" else [*_ENCODER]
    if component != "encoder" and projector is not None and projector.has_queries:
        wanted += _PROJECTOR
        if projector.num_layers > 1:  # the first layer's self-attention is computed away
            wanted.append("merge-qkv")
    missing = [name for name in dict.fromkeys(wanted) if name not in rewrites]
    if not missing:
        return None
    return (
        f"exported without {', '.join(missing)}, which its kernels rely on; export with the rewrites of the target: "
        "pargo-export onnx --target cuda"
    )


def find_tower_refusal(component: str, vision: TowerConfig) -> str | None:
    """Return why the backend cannot run a component with this tower; `None` if it can: a projector alone always."""
    if component == "projector" or isinstance(vision, VisionConfig):
        return None
    return (
        f"its kernels are written for the EVA-02 tower, and this bundle has a {vision.kind} tower; use the backend "
        "'tensorrt', 'onnxruntime-cuda', or one for CPUs"
    )


def find_variant_refusal(variant: Variant) -> str | None:
    """Return why the backend cannot run a variant whose precision it knows; `None` if it can, on some GPU."""
    quantization = variant.quantization
    if quantization is not None and quantization.quantized and quantization.dialect != "tensorrt":
        return (
            f"its activations are quantized with zero points, for CPUs (dialect {quantization.dialect!r}); quantize "
            "for a GPU: pargo-export quantize --int8 --target cuda"
        )
    if quantization is None and variant.precision in {"fp8", "int8"}:
        return "the manifest does not say how it was quantized; quantize again"
    if variant.float_precision not in {"float16", "bfloat16"}:
        return (
            f"what is not quantized is {variant.float_precision}, and tensor cores multiply halves; make it with "
            "--float-precision fp16"
        )
    return find_missing_rewrite(variant.component, variant.rewrites)
