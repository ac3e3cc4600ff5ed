"""See that what was built is what was asked for: first the typed network, then the engine, where it can be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pargo_export.bundle import BatchProfile, BuiltAsAsked, Variant
from pargo_export.engine.inspection import (
    KERNEL_SHARE,
    NetworkReport,
    explain,
    inspect_engine,
    inspect_network,
)
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, IExecutionContext, INetworkDefinition

__all__ = ["require_engine", "require_network"]


def require_network(
    tensorrt: TensorRT, network: INetworkDefinition, variant: Variant, *, min_share: float
) -> NetworkReport:
    """Inspect the network before the build, which takes minutes.

    Raises:
        EngineError: It multiplies in another precision than the variant says.
    """
    report = inspect_network(tensorrt, network, variant, min_share=min_share)
    _require_passed(report.built, variant)
    return report


def require_engine(
    tensorrt: TensorRT,
    plan: memoryview,
    network: NetworkReport,
    *,
    profile: BatchProfile,
    min_share: float,
    has_gpu: bool,
) -> BuiltAsAsked:
    """Inspect the engine where it can be loaded; elsewhere return what is known of the network.

    Args:
        tensorrt: What built it.
        plan: The serialized engine.
        network: What was found in the network.
        profile: Batch sizes of the first profile.
        min_share: Smallest share that was asked for; of kernels a little less is accepted.
        has_gpu: Whether there is a GPU to load it on.

    Raises:
        EngineError: TensorRT cannot load its own engine, or its kernels compute in another precision.
    """
    if not has_gpu:
        return network.built
    with tensorrt.log.watch() as log:
        runtime = tensorrt.module.Runtime(tensorrt.logger)
        engine = cast("ICudaEngine | None", runtime.deserialize_cuda_engine(plan))
        if engine is None:
            reason = log.reason("it gives no reason")
            if tensorrt.flavor == "tensorrt":
                raise EngineError(
                    f"{tensorrt.title} built an engine of variant {network.variant.name!r} that it cannot load itself: "
                    f"{reason}"
                )
            # Built for other GPUs than the one that is here.
            note = f"the engine was not loaded on this machine: {reason}"
            return network.built.model_copy(update={"notes": (*network.built.notes, note)})
    context = _create_context(engine, network.variant, profile)
    found = inspect_engine(tensorrt, engine, network, context=context, min_share=min(min_share, KERNEL_SHARE))
    _require_passed(found, network.variant)
    return found


def _create_context(engine: ICudaEngine, variant: Variant, profile: BatchProfile) -> IExecutionContext | None:
    """Return a context with its shapes set, without which some versions tell no types; `None` if memory is short."""
    context = cast("IExecutionContext | None", engine.create_execution_context())
    if context is None:
        return None
    for spec in variant.signature.inputs:
        shape = tuple(profile.opt_batch if isinstance(axis, str) else axis for axis in spec.shape)
        context.set_input_shape(spec.name, shape)
    return context


def _require_passed(found: BuiltAsAsked, variant: Variant) -> None:
    if not found.passed:
        raise EngineError(
            f"the engine of variant {variant.name!r} would not be what was asked for: {explain(found)}; export or "
            "quantize the variant again, or accept a smaller share (--min-share)"
        )
