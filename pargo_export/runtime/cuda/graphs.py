"""One CUDA graph a batch size, replayed on static buffers.

A call is padded to the next size that was captured: 1, 2, 4, ... and the largest. What lies in the padding does not
matter, images do not see each other. Each slot has a stream, buffers and graphs of its own, so that several callers
can run at once; within a slot the graphs share one memory pool, because they never run at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pargo_export.errors import BackendError
from pargo_export.runtime.cuda.host_memory import HostResults
from pargo_export.runtime.cuda.program import Program
from pargo_export.runtime.runner import Array, StageTimes
from pargo_export.runtime.slots import padded_size
from pargo_kernels import record_fallbacks

__all__ = ["STREAMS", "Slot", "StreamPool", "as_backend_error"]

_LOGGER = logging.getLogger("pargo_export.runtime")
_NUM_WARMUP = 2  # the first run compiles kernels, the second finds every library set up


class Slot:
    """A stream with static buffers and a graph for every kind of input and batch size.

    Args:
        program: What is captured.
        input_shape: Axes of one input, without the batch.
        output_shape: Axes of one output.
        dtypes: Kinds of input, for example float32 and uint8 pixels.
        sizes: Batch sizes, ascending.
        device: The GPU.
    """

    def __init__(
        self,
        program: Program,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        dtypes: tuple[torch.dtype, ...],
        sizes: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self.stream = STREAMS.take(device)
        self._sizes = sizes
        self._program = program  # the graphs read its weights by address: they must outlive it
        self._inputs = {
            dtype: torch.zeros((sizes[-1], *input_shape), dtype=dtype, device=device) for dtype in dtypes
        }
        self._staging = {
            dtype: torch.zeros((sizes[-1], *input_shape), dtype=dtype, pin_memory=True) for dtype in dtypes
        }
        self._output = torch.zeros((sizes[-1], *output_shape), dtype=torch.float32, device=device)
        try:
            self._graphs = self._capture()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hand the stream back; nothing may run any more."""
        STREAMS.give_back(self.stream)

    def _capture(self) -> Mapping[tuple[torch.dtype, int], torch.cuda.CUDAGraph]:
        program = self._program
        pool = torch.cuda.graph_pool_handle()
        graphs = {}
        self.stream.wait_stream(torch.cuda.current_stream(self._output.device))
        for dtype, values in self._inputs.items():
            for size in reversed(self._sizes):  # the largest first: it makes the pool, the others fit into it
                with torch.cuda.stream(self.stream), record_fallbacks() as reasons:
                    for _ in range(_NUM_WARMUP):
                        self._output[:size].copy_(program(values[:size]))
                self.stream.synchronize()
                for reason in sorted(reasons):
                    extra = {"pargo_event": "kernel_not_used", "pargo_batch_size": size}
                    _LOGGER.warning("batch %d: %s", size, reason, extra=extra)
                graph = torch.cuda.CUDAGraph()
                # Other threads may use the GPU meanwhile: only this one must not.
                with torch.cuda.graph(
                    graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"
                ):
                    self._output[:size].copy_(program(values[:size]))
                graphs[dtype, size] = graph
        self.stream.synchronize()
        return graphs

    def run_host(self, values: Array, results: HostResults) -> Array:
        """Compute an array on the host and wait for the result, which belongs to the caller."""
        return self._run(values, results)

    def run_stages(self, values: Array, results: HostResults) -> tuple[Array, StageTimes]:
        """Compute as `run_host` does, with events between the copies and the computation."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        for event in events:  # PyTorch makes an event when it is first recorded: not between two that count
            event.record(self.stream)
        unused = iter(events)
        tokens = self._run(values, results, lambda: next(unused).record(self.stream))
        return tokens, StageTimes(*map(_elapsed, events, events[1:]))

    def _run(self, values: Array, results: HostResults, mark: Callable[[], None] = lambda: None) -> Array:
        """Copy in, replay, copy out, wait; `mark` is called before and after each of the three."""
        batch = len(values)
        dtype = torch.uint8 if values.dtype == np.uint8 else torch.float32
        staging = self._staging[dtype][:batch]
        np.copyto(staging.numpy(), values)
        result, array = results.empty((batch, *self._output.shape[1:]))
        with torch.cuda.stream(self.stream):
            mark()
            self._inputs[dtype][:batch].copy_(staging, non_blocking=True)
            mark()
            self._replay(dtype, batch)
            mark()
            result.copy_(self._output[:batch], non_blocking=True)
            mark()
        self.stream.synchronize()
        return array

    def run_device(self, values: Tensor, result: Tensor) -> None:
        """Compute a tensor on the device into another one; both are in order with the caller's stream."""
        batch = len(values)
        dtype = torch.uint8 if values.dtype == torch.uint8 else torch.float32
        caller = torch.cuda.current_stream(values.device)
        self.stream.wait_stream(caller)
        with torch.cuda.stream(self.stream):
            self._inputs[dtype][:batch].copy_(values, non_blocking=True)
            self._replay(dtype, batch)
            result.copy_(self._output[:batch], non_blocking=True)
        caller.wait_stream(self.stream)

    def _replay(self, dtype: torch.dtype, batch: int) -> None:
        self._graphs[dtype, padded_size(self._sizes, batch)].replay()


class StreamPool:
    """Streams that nobody uses at present.

    The library keeps a workspace for every stream that ever multiplied on it (33 MB on an H100), as long as the
    process lives: streams of closed runtimes are used again.
    """

    def __init__(self) -> None:
        self._idle: dict[torch.device, list[Any]] = {}
        self._lock = threading.Lock()

    def take(self, device: torch.device) -> Any:
        """Return a stream of a device."""
        with self._lock:
            idle = self._idle.get(device)
            return idle.pop() if idle else torch.cuda.Stream(device)

    def give_back(self, stream: Any) -> None:
        """Keep a stream for the next one who asks."""
        with self._lock:
            self._idle.setdefault(stream.device, []).append(stream)


STREAMS = StreamPool()


def _elapsed(first: torch.cuda.Event, second: torch.cuda.Event) -> float:
    """Milliseconds between two events that lie behind."""
    return float(first.elapsed_time(second))


def as_backend_error(error: Exception, doing: str) -> BackendError:
    """Return what a failure of CUDA means: its first line, and what to do."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BackendError(f"CUDA failed while {doing}: {first}; open the bundle again, or use another backend")
