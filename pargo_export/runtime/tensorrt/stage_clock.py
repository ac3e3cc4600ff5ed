"""Events with times between the steps of one run, for measurements."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from typing_extensions import Self

from pargo_export.runtime.runner import StageTimes
from pargo_export.runtime.tensorrt.gpu import Gpu

__all__ = ["StageClock"]


class StageClock:
    """Four marks in a stream: before and after the input's copy, after the computation, after the output's copy.

    A context manager, which frees the events. The GPU must be active.

    Args:
        gpu: The GPU.
        stream: Where the run is queued.

    Raises:
        CudaError: An event cannot be made.
    """

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        self._gpu, self._stream = gpu, stream
        self._marks: list[Any] = []
        with contextlib.ExitStack() as made:
            self._unused: list[Any] = []
            for _ in range(4):  # made before the first mark: none of their cost is between two marks
                self._unused.append(gpu.make_event(with_timing=True))
                made.callback(gpu.cuda.call, "cuEventDestroy", self._unused[-1])
            self._made = made.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def mark(self) -> None:
        """Queue the next mark.

        Raises:
            CudaError: The driver refuses.
        """
        event = self._unused.pop(0)
        self._gpu.cuda.call("cuEventRecord", event, self._stream)
        self._marks.append(event)

    def times(self) -> StageTimes:
        """Return what lies between the four marks; the stream was waited for.

        On an integrated GPU nothing is copied: what lies between those marks are the marks themselves.

        Raises:
            CudaError: The driver refuses.
        """
        upload, compute, download = (
            float(self._gpu.cuda.call("cuEventElapsedTime", first, second))
            for first, second in itertools.pairwise(self._marks)
        )
        if self._gpu.is_integrated:
            upload = download = 0.0
        return StageTimes(upload, compute, download)
