"""Does it fit: weights, activations and workspace against the memory of the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pargo_export.estimation.devices import Device
from pargo_export.inspect.tally import Tally

__all__ = ["MemoryEstimate", "estimate_memory"]

_WORKSPACE = 256 << 20  # what kernels may ask for; engines are built with at least this limit
_CONTEXT = 512 << 20  # CUDA context and libraries: a round figure, not measured on a Jetson
_RESERVE = 1 << 30  # of the system and everything else that runs
_SHARED_RESERVE = 3 << 30  # where the system, cameras and the desktop have the same memory


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory while it runs, in bytes; all of it estimates.

    Attributes:
        weight_bytes: Weights and constants.
        activation_bytes: Activations that live at the same time, at most.
        workspace_bytes: What kernels may ask for beside that.
        context_bytes: CUDA context and libraries.
        device_bytes: Memory of the device.
        is_shared: Whether CPU and GPU share it.
        fits: Whether it fits beside what the system needs.
    """

    weight_bytes: int
    activation_bytes: int
    workspace_bytes: int
    context_bytes: int
    device_bytes: int
    is_shared: bool
    fits: bool

    @property
    def total_bytes(self) -> int:
        """All that is needed."""
        return self.weight_bytes + self.activation_bytes + self.workspace_bytes + self.context_bytes

    @property
    def left_bytes(self) -> int:
        """What is left of the device for the language model, the system and everything else."""
        return self.device_bytes - self.total_bytes


def estimate_memory(tallies: Iterable[Tally], device: Device, *, element_bytes: int) -> MemoryEstimate:
    """Estimate the memory of a run.

    Args:
        tallies: The blocks.
        device: Where it runs.
        element_bytes: Bytes of what does not have 8 bits.
    """
    weights = activations = 0
    for tally in tallies:
        weights += element_bytes * (tally.weights - tally.narrow_weights) + tally.narrow_weights
        # Input, output and the residual stream of the widest operation; an engine reuses everything else.
        for operation in tally.operations:
            live = element_bytes * (2 * operation.inputs + operation.outputs)
            activations = max(activations, live)
    reserve = _SHARED_RESERVE if device.is_memory_shared else _RESERVE
    total = weights + activations + _WORKSPACE + _CONTEXT
    return MemoryEstimate(
        weight_bytes=weights,
        activation_bytes=activations,
        workspace_bytes=_WORKSPACE,
        context_bytes=_CONTEXT,
        device_bytes=device.memory_bytes,
        is_shared=device.is_memory_shared,
        fits=total <= device.memory_bytes - reserve,
    )
