"""What runners with several streams share: which batch sizes are prepared, and who may use which stream."""

from __future__ import annotations

import bisect
import contextlib
import queue
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["SlotPool", "batch_sizes", "padded_size"]


class Slot(Protocol):
    """A stream with what one batch needs."""

    def close(self) -> None:
        """Free it."""


S = TypeVar("S", bound=Slot)


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """Return the batch sizes to capture: powers of two below `max_batch`, and itself."""
    powers = [1 << exponent for exponent in range(max_batch.bit_length()) if 1 << exponent < max_batch]
    return (*powers, max_batch)


def padded_size(sizes: tuple[int, ...], batch: int) -> int:
    """Return the smallest of the sorted `sizes` that holds `batch` images."""
    return sizes[bisect.bisect_left(sizes, batch)]


class SlotPool(Generic[S]):
    """Slots, and who may use them; callers wait for a free one.

    Args:
        slots: The slots.
    """

    def __init__(self, slots: list[S]) -> None:
        self._free: queue.LifoQueue[S] = queue.LifoQueue()  # the last used one is the warmest
        for slot in slots:
            self._free.put(slot)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[S]:
        """Yield a free slot; waits for one."""
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def clear(self) -> None:
        """Close the slots and forget them; none may be in use."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()
