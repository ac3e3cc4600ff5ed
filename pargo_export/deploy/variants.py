"""Which variant of a bundle an engine is built from."""

from __future__ import annotations

from pargo_export.bundle import Manifest, Variant
from pargo_export.deploy.target import GpuTarget

__all__ = ["describe_fit", "find_variant"]

# Forms without model-local functions, which every parser takes: the first choice where that of JetPack 6 reads them.
_INLINED = frozenset({"structured", "dense"})


def find_variant(
    manifest: Manifest, precision: str, target: GpuTarget, *, allow_failed: bool = False
) -> Variant | None:
    """Return the best variant of the whole model that TensorRT can take for a target; `None` if there is none.

    Best is, in this order: evidence that did not fail; made for that target; made for another GPU; float16 around what is quantized; normalised
    pixels as input; for Orin an attention without functions; the name. The dialect of CPUs does not count, nor the
    operator `Attention` in one that was made for another target, nor, unless allowed, a variant whose evidence failed.
    """
    fitting = [item for item in manifest.variants.values() if _fits(item, precision, target)]
    if not allow_failed:
        fitting = [item for item in fitting if _passed(item)]

    def rank(item: Variant) -> tuple[object, ...]:
        return (
            not _passed(item),
            item.target != target,
            item.target == "cpu",
            item.float_precision != "float16",
            item.input != "float",
            target == "orin" and item.attention not in _INLINED,
            item.name,
        )

    return min(fitting, key=rank, default=None)


def _fits(item: Variant, precision: str, target: GpuTarget) -> bool:
    return (
        item.precision == precision
        and item.component == "all"
        and (
            item.quantization is None
            or not item.quantization.quantized
            or item.quantization.dialect == "tensorrt"
        )
        and (item.attention != "attention_op" or item.target == target)
    )


def _passed(item: Variant) -> bool:
    return item.evidence is None or item.evidence.passed


def describe_fit(item: Variant, target: GpuTarget) -> tuple[str, ...]:
    """Return remarks on a variant that was made for another target, or reads functions on JetPack 6."""
    remarks = []
    if item.target == "cpu":
        remarks.append(
            f"variant {item.name} was made for CPUs: the hidden width of its tower is not padded, which tensor cores pay "
            f"for; export the checkpoint for this target to mend it (pargo-export trt CHECKPOINT -o BUNDLE --target {target})"
        )
    elif item.target != target:
        remarks.append(f"variant {item.name} was made for {item.target}, it serves {target} as well")
    if target == "orin" and item.attention == "fused":
        remarks.append(
            f"variant {item.name} writes its attention as functions, which the parser of JetPack 6 (TensorRT 10.3) should "
            "take, but nobody tried; if it does not, the build writes them out, for which the device needs the package onnx. "
            "A checkpoint exported for orin has none"
        )
    return tuple(remarks)
