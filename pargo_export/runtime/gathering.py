"""Dynamic micro-batching: requests that arrive within a short time are computed in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pargo_export.runtime.computation import Computation, Spent
from pargo_export.runtime.inputs import Reading
from pargo_export.runtime.request_queue import Request, RequestQueue
from pargo_export.runtime.runner import Array

__all__ = ["Gatherer", "Prepared", "run_together"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request that was begun.

    Attributes:
        request: The request.
        spent: Its images, and where its time went so far.
        reading: Its images, if they were prepared.
        pixels: As the runner takes them; `None`: it runs alone.
    """

    request: Request
    spent: Spent
    reading: Reading | None = None
    pixels: Array | None = None


class Gatherer:
    """Collects requests until a run is full, or nobody should wait any longer.

    Args:
        computation: What prepares and runs.
        queue: Where the requests wait.
        window_s: How long the first one of a run waits for more. One whose deadline is within does not wait.
    """

    def __init__(self, computation: Computation, queue: RequestQueue, window_s: float) -> None:
        self._computation = computation
        self._queue = queue
        self._window_s = window_s

    def prepare(self, request: Request) -> Prepared:
        """Decode the images of one request, so that what is wrong with them concerns it alone.

        Left as it is, to run alone: what is more than one run, asks for a batch size, or lies on the device.

        Raises:
            ImageError: A picture cannot be read.
            InputError: As for `Runtime.encode`.
        """
        spent = Spent()
        if request.batch_size is not None or self._computation.stays_on_device(request.images):
            return Prepared(request, spent)
        reading, size = self._computation.plan(request.images, None, spent)
        if len(reading) > size:
            return Prepared(request, spent)
        return Prepared(request, spent, reading, self._computation.prepare(reading, 0, len(reading), spent))

    def gather(
        self, first: Prepared, begin: Callable[[Request], Prepared | None]
    ) -> tuple[list[Prepared], Prepared | None]:
        """Collect what runs with a request.

        Args:
            first: The request, with its pixels.
            begin: Begins and prepares a request that left the queue; `None`: there is nothing to compute.

        Returns:
            The requests of one run, `first` among them; and one that was begun and did not fit.
        """
        group, num_images = [first], first.spent.num_images
        end = time.perf_counter() + self._window_s
        while num_images < self._computation.max_batch:
            if _deadline(group[-1]) <= end:
                break
            request = self._queue.take_until(end)
            if request is None:
                break
            prepared = begin(request)
            if prepared is None:
                continue
            if not self._fits(prepared, first, num_images):
                return group, prepared
            group.append(prepared)
            num_images += prepared.spent.num_images
        return group, None

    def _fits(self, prepared: Prepared, first: Prepared, num_images: int) -> bool:
        """Whether a request may run together with others; uint8 pixels and normalised ones may not."""
        return (
            prepared.pixels is not None
            and first.pixels is not None
            and prepared.pixels.dtype == first.pixels.dtype
            and num_images + prepared.spent.num_images <= self._computation.max_batch
        )


def run_together(computation: Computation, group: Sequence[Prepared], spent: Spent) -> list[Any]:
    """Compute prepared requests in one run, and return the visual tokens of each, in the library of its images.

    Raises:
        BackendError: The execution failed, for all of them.
    """
    pixels = [prepared.pixels for prepared in group if prepared.pixels is not None]
    tokens = computation.run(pixels[0] if len(pixels) == 1 else np.concatenate(pixels), spent)
    results, start = [], 0
    for prepared in group:
        stop = start + prepared.spent.num_images
        part = tokens[start:stop]
        results.append(part if prepared.reading is None else computation.hand_over(part, prepared.reading))
        start = stop
    return results


def _deadline(prepared: Prepared) -> float:
    deadline = prepared.request.deadline
    return float("inf") if deadline is None else deadline
