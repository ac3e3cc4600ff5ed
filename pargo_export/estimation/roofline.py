"""The time of a block: each kernel is bound by computing or by moving bytes, and has to be launched.

- A product is one kernel, together with the products that read the same matrix (merged projections); it takes the longer
  of computing and moving its weights, inputs and outputs once.
- What stands between two products (norm, activation, rotation, residual sum) is one more kernel that reads the output
  of the product and writes the next input, as well-fused engines do it.
- An attention is one kernel whose scores stay on the chip; unfused, the scores go out and come back twice, in two
  kernels more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pargo_export.inspect.tally import Operation

__all__ = ["BlockTime", "Limit", "Rates", "time_operations"]

Limit = Literal["compute", "memory", "launches"]
_SCORE_TRIPS = 4  # written, read by the softmax, written, read by the second product


@dataclass(frozen=True)
class Rates:
    """What a device really does.

    Attributes:
        flops_per_s: Float products and attention.
        narrow_flops_per_s: Products whose weights and inputs have 8 bits.
        bytes_per_s: Memory.
        launch_s: A kernel beside its work, in seconds.
        misaligned: Factor on the computing of products whose channels are no multiple of 8.
    """

    flops_per_s: float
    narrow_flops_per_s: float
    bytes_per_s: float
    launch_s: float
    misaligned: float = 1.0


@dataclass(frozen=True)
class BlockTime:
    """Where the time of a block goes, in seconds.

    Attributes:
        compute_s: Kernels that are bound by computing.
        memory_s: Kernels that are bound by memory.
        launches_s: Launches of all kernels.
        kernels: Their number.
    """

    compute_s: float = 0.0
    memory_s: float = 0.0
    launches_s: float = 0.0
    kernels: int = 0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.compute_s + self.memory_s + self.launches_s

    @property
    def limit(self) -> Limit:
        """What takes most of the time."""
        parts: dict[Limit, float] = {
            "compute": self.compute_s,
            "memory": self.memory_s,
            "launches": self.launches_s,
        }
        return max(parts, key=lambda name: parts[name])

    def __add__(self, other: BlockTime) -> BlockTime:
        return BlockTime(
            self.compute_s + other.compute_s,
            self.memory_s + other.memory_s,
            self.launches_s + other.launches_s,
            self.kernels + other.kernels,
        )


def time_operations(
    operations: Sequence[Operation],
    rates: Rates,
    *,
    element_bytes: int,
    unfused_heads: int = 0,
) -> BlockTime:
    """Add up the kernels of a block.

    Args:
        operations: What the block computes, in order.
        rates: What the device does.
        element_bytes: Bytes of what does not have 8 bits.
        unfused_heads: Heads whose attention scores go through memory; 0: attention is one fused kernel.
    """
    total = BlockTime()
    for group in _kernels(operations):
        total += _time_kernel(group, rates, element_bytes)
        if group[0].kind == "product":
            written = element_bytes * sum(operation.outputs for operation in group)
            total += BlockTime(memory_s=2 * written / rates.bytes_per_s, launches_s=rates.launch_s, kernels=1)
        elif unfused_heads:
            scores = _SCORE_TRIPS * element_bytes * unfused_heads * group[0].scores
            total += BlockTime(memory_s=scores / rates.bytes_per_s, launches_s=2 * rates.launch_s, kernels=2)
    return total


def _kernels(operations: Iterable[Operation]) -> list[list[Operation]]:
    groups: list[list[Operation]] = []
    for operation in operations:
        if operation.inputs == 0 and groups and groups[-1][0].kind == "product":
            groups[-1].append(operation)
        else:
            groups.append([operation])
    return groups


def _time_kernel(group: list[Operation], rates: Rates, element_bytes: int) -> BlockTime:
    computing = moving = 0.0
    for operation in group:
        weight_bytes = 1 if operation.narrow.weight else element_bytes
        input_bytes = 1 if operation.narrow.activation else element_bytes
        moving += operation.weights * weight_bytes + operation.inputs * input_bytes
        moving += operation.outputs * element_bytes
        rate = rates.narrow_flops_per_s if all(operation.narrow) else rates.flops_per_s
        computing += operation.flops / rate * (1.0 if operation.is_aligned else rates.misaligned)
    moving /= rates.bytes_per_s
    if computing >= moving:
        return BlockTime(compute_s=computing, launches_s=rates.launch_s, kernels=1)
    return BlockTime(memory_s=moving, launches_s=rates.launch_s, kernels=1)
