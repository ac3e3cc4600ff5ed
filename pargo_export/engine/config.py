"""The builder's configuration: profiles, limits, levels. No precision flag: precision is in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pargo_export.bundle import BatchProfile, Variant
from pargo_export.engine.network import ParsedNetwork
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig

__all__ = ["create_config"]


def create_config(
    tensorrt: TensorRT,
    parsed: ParsedNetwork,
    variant: Variant,
    options: EngineOptions,
    *,
    profiles: Sequence[BatchProfile],
    workspace_bytes: int | None,
    detailed: bool,
) -> IBuilderConfig:
    """Return the configuration of a build.

    Args:
        tensorrt: What builds.
        parsed: The network.
        variant: Has the signature.
        options: What was asked for.
        profiles: Batch sizes, one optimization profile each.
        workspace_bytes: Limit for the workspace; `None` leaves TensorRT's.
        detailed: Keep names, types and kernels of all layers in the engine.

    Raises:
        EngineError: TensorRT does not take a setting.
    """
    module = tensorrt.module
    config = parsed.builder.create_builder_config()
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    verbosity = module.ProfilingVerbosity
    config.profiling_verbosity = verbosity.DETAILED if detailed else verbosity.LAYER_NAMES_ONLY
    if workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace_bytes)
    if options.capabilities:
        _set_capabilities(tensorrt, config, options.capabilities)
    _require_signature(tensorrt, parsed, variant)
    for profile in profiles:
        _add_profile(tensorrt, parsed, variant, config, profile)
    return config


def _set_capabilities(tensorrt: TensorRT, config: IBuilderConfig, capabilities: Sequence[str]) -> None:
    enum = getattr(tensorrt.module, "ComputeCapability", None)
    members = {} if enum is None else enum.__members__
    known = {_dotted(name): value for name, value in members.items() if name.startswith("SM")}
    unknown = [item for item in capabilities if item not in known]
    if unknown:
        offered = ", ".join(sorted(known, key=float)) or "none"
        raise EngineError(
            f"{tensorrt.title} does not build for compute capability {', '.join(unknown)}; it offers {offered}"
            + ("; H100 and Jetson need --flavor tensorrt, on the device" if known else "")
        )
    rtx: Any = config  # only TensorRT for RTX has these
    rtx.num_compute_capabilities = len(capabilities)
    for index, item in enumerate(capabilities):
        rtx.set_compute_capability(known[item], index)


def _dotted(name: str) -> str:
    """`SM86` -> `8.6`, `SM120` -> `12.0`."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _require_signature(tensorrt: TensorRT, parsed: ParsedNetwork, variant: Variant) -> None:
    """See that the network has the inputs and outputs that the manifest promises."""
    network = parsed.network
    found = [network.get_input(index).name for index in range(network.num_inputs)]
    found += [network.get_output(index).name for index in range(network.num_outputs)]
    expected = [spec.name for spec in (*variant.signature.inputs, *variant.signature.outputs)]
    if found != expected:
        raise EngineError(
            f"{tensorrt.title} made a network with inputs and outputs {', '.join(found)} of variant {variant.name!r}; "
            f"expected {', '.join(expected)}: export the graph again"
        )


def _add_profile(
    tensorrt: TensorRT, parsed: ParsedNetwork, variant: Variant, config: IBuilderConfig, profile: BatchProfile
) -> None:
    """Add a profile; the batch is the only axis of a graph that is not fixed."""
    shapes = parsed.builder.create_optimization_profile()
    for spec in variant.signature.inputs:
        batches = (profile.min_batch, profile.opt_batch, profile.max_batch)
        # TensorRT takes tuples for `Dims`, which the stubs do not say.
        sizes: list[Any] = [
            tuple(size if isinstance(axis, str) else axis for axis in spec.shape) for size in batches
        ]
        shapes.set_shape(spec.name, *sizes)
    with tensorrt.log.watch() as log:
        if config.add_optimization_profile(shapes) < 0:
            raise EngineError(
                f"{tensorrt.title} does not take the profile {profile} of variant {variant.name!r}: "
                f"{log.reason('it gives no reason')}"
            )
