"""Results in page-locked memory, to which the GPU copies directly.

A result belongs to the caller, so each needs memory of its own. Copying it out of one static buffer would take longer
than the whole transfer. But page-locked memory cannot be swapped, and a caller may keep every result: beyond a limit
the results are ordinary memory.
"""

from __future__ import annotations

import math
import threading
import weakref

import torch
from torch import Tensor

from pargo_export.runtime.runner import Array

__all__ = ["DEFAULT_LIMIT_BYTES", "HostResults"]

DEFAULT_LIMIT_BYTES = 512 * 2**20  # about a hundred images of the official model
_FLOAT_BYTES = 4


class HostResults:
    """Makes arrays for results, and knows how much of them callers still hold.

    Args:
        limit_bytes: Page-locked memory in the hands of callers.
        pin: Lock pages; off where there is no GPU.

    Attributes:
        held_bytes: Page-locked memory that is in use now.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES, *, pin: bool = True) -> None:
        self.held_bytes = 0
        self._limit, self._pin = limit_bytes, pin
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...]) -> tuple[Tensor, Array]:
        """Return one float32 memory as a tensor and as an array; it lives as long as either."""
        size = math.prod(shape) * _FLOAT_BYTES
        with self._lock:
            fits = self.held_bytes + size <= self._limit
            if fits:
                self.held_bytes += size
        tensor = torch.empty(shape, dtype=torch.float32, pin_memory=fits and self._pin)
        array: Array = tensor.numpy()
        if fits:
            weakref.finalize(array, self._release, size).atexit = False
        return tensor, array

    def _release(self, size: int) -> None:
        with self._lock:
            self.held_bytes -= size
