"""A stream with everything that one batch needs: buffers, scratch memory, a context and a graph for each batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pargo_export.runtime.runner import Array, StageTimes
from pargo_export.runtime.slots import padded_size
from pargo_export.runtime.tensorrt.buckets import Bucket
from pargo_export.runtime.tensorrt.contexts import ExecutionContext, scratch_bytes
from pargo_export.runtime.tensorrt.driver import CudaError
from pargo_export.runtime.tensorrt.gpu import Gpu
from pargo_export.runtime.tensorrt.graphs import capture
from pargo_export.runtime.tensorrt.loading import LoadedEngine
from pargo_export.runtime.tensorrt.memory import DeviceMemory, Port
from pargo_export.runtime.tensorrt.stage_clock import StageClock
from pargo_export.signature import Signature

__all__ = ["Slot"]


class Slot:
    """Where one batch at a time is computed.

    What lies in the padding of a batch does not matter, images do not see each other.

    Args:
        gpu: The GPU.
        engine: The engine.
        buckets: Batch sizes to prepare, ascending; each is run once, which compiles and sets up what is needed.
        signature: One input, one output.

    Attributes:
        failure: Why nothing can run here any more; empty as long as it can.

    Raises:
        BackendError: Memory is short, or TensorRT or CUDA fails; nothing is left of it then.
    """

    def __init__(
        self, gpu: Gpu, engine: LoadedEngine, buckets: tuple[Bucket, ...], signature: Signature
    ) -> None:
        self._gpu = gpu
        self.failure = ""
        self._is_pending = False  # something was queued that nobody has waited for
        self._sizes = tuple(bucket.batch for bucket in buckets)
        self._launches: dict[int, Callable[[], None]] = {}
        largest = self._sizes[-1]
        with gpu.active(), contextlib.ExitStack() as made:
            self._stream: Any = gpu.make_stream()
            made.callback(gpu.cuda.call, "cuStreamDestroy", self._stream)
            self._ready: Any = gpu.make_event()
            made.callback(gpu.cuda.call, "cuEventDestroy", self._ready)
            self._input = Port(gpu, signature.inputs[0], largest)
            made.callback(self._input.close)
            self._output = Port(gpu, signature.outputs[0], largest)
            made.callback(self._output.close)
            scratch = DeviceMemory(gpu, scratch_bytes(engine))
            made.callback(scratch.close)
            with self._settling():
                self._input.upload(largest, self._stream)
                for bucket in reversed(buckets):  # what is short of memory fails first
                    self._launches[bucket.batch] = self._prepare(engine, bucket, scratch.address, made)
            made.callback(self._wait)  # what is queued ends before anything is freed
            self._made = made.pop_all()

    def run_host(self, values: Array) -> Array:
        """Compute an array on the host, wait, and return an array that belongs to the caller.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        with self._settling():
            return self._compute(values)

    def run_stages(self, values: Array) -> tuple[Array, StageTimes]:
        """Compute as `run_host` does, with events between the copies and the computation.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        with self._settling(), StageClock(self._gpu, self._stream) as clock:
            tokens = self._compute(values, clock.mark)
            return tokens, clock.times()

    def run_device(self, source: int, target: int, batch: int) -> None:
        """Queue the computation of values on the GPU into memory there; see `handle` and `let_wait`.

        Args:
            source: Where the images are, contiguous, as the input.
            target: Where the outputs go.
            batch: Images.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        with self._settling():
            self._is_pending = True
            self._gpu.copy(self._input.address, source, batch * self._input.row_bytes, self._stream)
            self._launches[padded_size(self._sizes, batch)]()
            self._gpu.copy(target, self._output.address, batch * self._output.row_bytes, self._stream)

    @property
    def handle(self) -> int:
        """The stream, for those who must let it wait."""
        return int(self._stream)

    def let_wait(self, stream: int) -> None:
        """Let another stream wait for everything that was queued here. The GPU must be active.

        Raises:
            CudaError: The driver refuses.
        """
        self._gpu.cuda.call("cuEventRecord", self._ready, self._stream)
        self._gpu.cuda.call("cuStreamWaitEvent", stream, self._ready, 0)

    def close(self) -> None:
        """Free everything; nothing may run any more.

        Raises:
            CudaError: The driver refuses; what can be freed is freed.
        """
        with self._gpu.active():
            self._made.close()

    def _compute(self, values: Array, mark: Callable[[], None] = lambda: None) -> Array:
        """Copy in, launch, copy out, wait; `mark` is called before and after each of the three."""
        batch = len(values)
        if self._is_pending and self._gpu.is_integrated:  # the GPU still reads what is written next
            self._wait()
        np.copyto(self._input.host[:batch], values)
        mark()
        self._input.upload(batch, self._stream)
        mark()
        self._launches[padded_size(self._sizes, batch)]()
        mark()
        self._output.download(batch, self._stream)
        mark()
        self._wait()
        return self._output.host[:batch].copy()

    def _prepare(
        self,
        engine: LoadedEngine,
        bucket: Bucket,
        scratch: int,
        made: contextlib.ExitStack,
    ) -> Callable[[], None]:
        """Make a context, run it once, and return what launches it from now on."""
        context = ExecutionContext(
            engine, bucket, [self._input], [self._output], scratch=scratch, stream=self._stream
        )
        made.callback(context.close)
        context.enqueue()
        self._wait()
        if engine.cache is not None:  # RTX has captured its own graph
            return context.enqueue
        what = f"engine {engine.record.name}, batch {bucket.batch},"
        graph = capture(self._gpu, self._stream, context.enqueue, what)
        if graph is None:
            return context.enqueue
        made.callback(graph.close)
        return graph.launch

    @contextlib.contextmanager
    def _settling(self) -> Iterator[None]:
        """Make the GPU active; after a failure wait until nothing uses the buffers any more."""
        with self._gpu.active():
            try:
                yield
            except BaseException:
                try:
                    self._wait()
                except CudaError as error:  # most errors of a kernel are for good
                    self.failure = str(error)
                raise

    def _wait(self) -> None:
        self._gpu.cuda.call("cuStreamSynchronize", self._stream)
        self._is_pending = False
