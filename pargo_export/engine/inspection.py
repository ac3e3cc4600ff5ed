"""Was the engine built as asked? First the typed network, then, where it can be loaded, the engine itself.

An FP16 or INT8 request that silently became an FP32 engine still runs, only slowly. So every linear is held against
what its variant says: the network must multiply in exactly that, and the kernels of the engine nearly all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pargo_export.bundle import BuiltAsAsked, Variant
from pargo_export.engine.inspection_layers import Kernel, parse_inspector
from pargo_export.engine.inspection_network import NetworkContents, Product, read_network
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, IExecutionContext, INetworkDefinition

__all__ = ["KERNEL_SHARE", "NETWORK_SHARE", "NetworkReport", "explain", "inspect_engine", "inspect_network"]

# Of the operations. The types of a network are not negotiable; the share allows for rounding alone.
NETWORK_SHARE = 0.99
# A builder may find a float kernel faster for a small product; ten percent of the operations are not small.
KERNEL_SHARE = 0.90
_OPAQUE = "opaque"
_NUM_NAMES = 4


@dataclass(frozen=True)
class NetworkReport:
    """What a network multiplies in, held against its variant.

    Attributes:
        variant: The variant.
        linears: Its products with a weight.
        built: The result.
    """

    variant: Variant
    linears: tuple[Product, ...]
    built: BuiltAsAsked


def inspect_network(
    tensorrt: TensorRT, network: INetworkDefinition, variant: Variant, *, min_share: float = NETWORK_SHARE
) -> NetworkReport:
    """Hold a parsed network against the precision that its variant asks for.

    Args:
        tensorrt: The TensorRT that parsed it.
        network: The `INetworkDefinition`; its layers are read, not changed.
        variant: The variant whose graph was parsed.
        min_share: Smallest accepted share of the operations.
    """
    found = read_network(tensorrt.module, network)
    notes = [_attention_note(found)] if found.attention_products else []
    built = _hold(
        "network",
        variant,
        found.linears,
        limit=min_share,
        attention=" and ".join(sorted(found.attention)) or "unknown",
        casts=found.casts,
        notes=notes,
    )
    return NetworkReport(variant, found.linears, built)


def inspect_engine(
    tensorrt: TensorRT,
    engine: ICudaEngine,
    network: NetworkReport,
    *,
    context: IExecutionContext | None = None,
    min_share: float = KERNEL_SHARE,
) -> BuiltAsAsked:
    """Hold the kernels of a deserialized engine against what was asked for.

    Args:
        tensorrt: The TensorRT that loaded it.
        engine: The `ICudaEngine`, built with detailed profiling: without it kernels have names only.
        network: What `inspect_network` found in the network that it was built from.
        context: An execution context with its input shapes set. With dynamic shapes some versions tell types of
            tensors only if they have one.
        min_share: Share of the operations that may not be seen to run in another precision.

    Raises:
        EngineError: The inspector's answer cannot be read.
    """
    inspector = engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    text = inspector.get_engine_information(tensorrt.module.LayerInformationFormat.JSON)
    return judge_kernels(parse_inspector(text), network, min_share=min_share)


def judge_kernels(
    kernels: Sequence[Kernel], network: NetworkReport, *, min_share: float = KERNEL_SHARE
) -> BuiltAsAsked:
    """Hold kernels against what was asked for.

    A linear counts where a kernel that multiplies names its node, with the precision of that kernel. One that no such
    kernel names is `opaque`: fused into a region whose kernels are not told. It counts as not seen in the precision
    asked for, and does not fail the engine; only what was seen in another precision does.
    """
    multiplying: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        if kernel.multiplies:
            for node in kernel.nodes:
                multiplying.setdefault(node, []).append(kernel)
    linears = tuple(
        replace(linear, precision=_kernel_precision(linear, multiplying.get(linear.node, ())))
        for linear in network.linears
    )
    opaque = [linear.node for linear in linears if linear.precision == _OPAQUE]
    notes = [f"{len(kernels)} kernels listed"]
    if opaque:
        notes.append(f"{len(opaque)} linears are in no kernel that tells its precision: {_names(opaque)}")
    is_fused = any(kernel.is_attention and not _of_tower(kernel) for kernel in kernels)
    built = _hold(
        "inspector",
        network.variant,
        linears,
        limit=min_share,
        attention="fused kernel" if is_fused else network.built.attention,
        casts=network.built.casts,
        notes=notes,
    )
    return built.model_copy(update={"passed": built.passed and network.built.passed})


def explain(built: BuiltAsAsked) -> str:
    """Return why an inspection did not pass, for an error: what was found, what was expected."""
    found = ", ".join(f"{number} in {name}" for name, number in sorted(built.linears.items())) or "none"
    reasons = "; ".join((*built.notes, *built.casts[:_NUM_NAMES]))
    return (
        f"asked for {built.asked}, and {built.share:.1%} of the operations are in it, expected {built.limit:.0%} "
        f"({built.source}; linears: {found}); {reasons}"
    )


def _hold(
    source: str,
    variant: Variant,
    linears: Sequence[Product],
    *,
    limit: float,
    attention: str,
    casts: tuple[str, ...],
    notes: Iterable[str],
) -> BuiltAsAsked:
    """Compare the precision of each linear with the one that the variant says."""
    quantized = set(variant.quantization.quantized) if variant.quantization is not None else set()
    is_quantized = bool(quantized)
    asked = [item for item in linears if not is_quantized or item.path in quantized]
    rest = [item for item in linears if is_quantized and item.path not in quantized]
    missing = sorted(quantized - {item.path for item in linears})
    wrong = [item for item in asked if item.precision not in {variant.precision, _OPAQUE}]
    wrong_rest = [item for item in rest if item.precision not in {variant.float_precision, _OPAQUE}]
    reasons = [
        *_complaint(f"not in {variant.precision}", [f"{item.path} ({item.precision})" for item in wrong]),
        *_complaint(
            f"not in {variant.float_precision}", [f"{item.path} ({item.precision})" for item in wrong_rest]
        ),
        *_complaint("not found", missing),
    ]
    total = _flops(asked)
    right = _flops(item for item in asked if item.precision == variant.precision)
    precisions = Counter(item.precision for item in linears)
    return BuiltAsAsked.model_validate(
        {
            "source": source,
            "asked": variant.precision,
            "linears": dict(precisions),
            "flops": {
                name: _flops(item for item in linears if item.precision == name) for name in precisions
            },
            "share": right / total if total else 0.0,
            "limit": limit,
            "attention": attention,
            "casts": casts,
            "passed": bool(total)
            and not missing
            and total - _flops(wrong) >= limit * total
            and _flops(rest) - _flops(wrong_rest) >= limit * _flops(rest),
            "notes": (*reasons, *notes),
        }
    )


def _kernel_precision(linear: Product, kernels: Sequence[Kernel]) -> str:
    """Precision of the kernels that name a linear; with several that disagree, one that it is not meant to be in."""
    found = {kernel.precision for kernel in kernels} - {None}
    if not found:
        return _OPAQUE
    if linear.precision.endswith("_weight_only"):
        # It multiplies halves; that the weights stay narrow shows where their DequantizeLinear is part of the kernel.
        is_fused = any(
            node.endswith(".weight/DequantizeLinear") for kernel in kernels for node in kernel.nodes
        )
        return linear.precision if is_fused else _OPAQUE
    others = sorted(str(name) for name in found if name != linear.precision)
    return others[0] if others else linear.precision


def _attention_note(found: NetworkContents) -> str:
    precisions = Counter(item.precision for item in found.attention_products)
    kinds = ", ".join(f"{number} in {name}" for name, number in sorted(precisions.items()))
    return f"attention products: {kinds}; {_flops(found.attention_products) / 1e9:.3g} GFLOP an image"


def _of_tower(kernel: Kernel) -> bool:
    return bool(kernel.nodes) and all(node.startswith("tower.") for node in kernel.nodes)


def _complaint(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}: {_names(names)}"] if names else []


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NUM_NAMES
    return ", ".join(names[:_NUM_NAMES]) + (f" and {more} more" if more > 0 else "")


def _flops(items: Iterable[Product]) -> float:
    return sum((item.flops for item in items), 0.0)
