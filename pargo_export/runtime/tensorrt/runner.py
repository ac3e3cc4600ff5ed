"""Host and device arrays in, visual tokens out, by an engine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pargo_export.bundle import Bundle, Engine, EngineDevice
from pargo_export.errors import BackendError, InputError
from pargo_export.runtime.runner import Array, Runner, RunnerOptions, StageTimes
from pargo_export.runtime.slots import SlotPool
from pargo_export.runtime.tensorrt.buckets import choose_buckets
from pargo_export.runtime.tensorrt.device_arrays import (
    address_of,
    detach,
    empty_like,
    is_taken,
    let_caller_wait,
)
from pargo_export.runtime.tensorrt.driver import Cuda, CudaError
from pargo_export.runtime.tensorrt.gpu import Gpu, is_out_of_memory
from pargo_export.runtime.tensorrt.loading import LoadedEngine
from pargo_export.runtime.tensorrt.slot import Slot
from pargo_export.trt import TensorRT

__all__ = ["EngineRunner"]

_LOGGER = logging.getLogger("pargo_export.runtime")


class EngineRunner(Runner):
    """An engine on the first GPU. Everything is allocated, compiled and captured when it is opened.

    Args:
        bundle: The bundle.
        engine: One of its engines.
        options: Streams; each takes buffers, scratch memory and contexts of its own, the weights are shared.
        device: This machine.
        tensorrt: The TensorRT to run it.
        cuda: The CUDA driver.
        accept_failed: The user named the engine: failed evidence is no obstacle.

    Raises:
        BackendError: The engine cannot run here, memory is short, or TensorRT or CUDA fails.
        BundleError: The engine is not what its record says.
        IntegrityError: Its file, or a plugin library, is not the one that the manifest describes.
    """

    takes_device_arrays = True
    times_stages = True

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        options: RunnerOptions,
        *,
        device: EngineDevice,
        tensorrt: TensorRT,
        cuda: Cuda,
        accept_failed: bool = False,
    ) -> None:
        signature = bundle.manifest.variants[engine.variant].signature
        self._input, self._output = signature.inputs[0], signature.outputs[0]
        self._engine = engine
        self._failure = ""
        with contextlib.ExitStack() as made:
            self._gpu = Gpu(cuda)
            made.callback(self._gpu.close)
            streams = f", {options.streams} streams" if options.streams > 1 else ""
            super().__init__(
                signature, f"{tensorrt.title}, engine {engine.name}, on {self._gpu.name}{streams}"
            )
            self.max_batch = engine.max_batch
            with self._gpu.active():
                loaded = LoadedEngine(
                    bundle, engine, device=device, tensorrt=tensorrt, accept_failed=accept_failed
                )
            made.callback(self._unload, loaded)
            self._slots = SlotPool(self._make_slots(loaded, options.streams, made))
            if loaded.cache is not None:
                with self._gpu.active():
                    loaded.cache.save()
            self._made = made.pop_all()

    def takes_device_array(self, array: Any) -> bool:
        """Whether it lies on this GPU, contiguous and of the dtype that the engine reads, in PyTorch or CuPy."""
        return is_taken(array, self._input, self._gpu.ordinal)

    def run_on_device(self, values: Any, batch_size: int) -> Any:
        """Compute an array of PyTorch or CuPy on this GPU without the host.

        The engine reads after what the caller's current stream has queued, and what that stream queues next runs after
        the result is there; this call does not wait for the GPU.

        Args:
            values: `[B, ...]` or one image, as `takes_device_array` wants it. NaN is not looked for.
            batch_size: Images in one run.

        Returns:
            float32 `[B, ...]`, an array of the caller's library on this GPU.

        Raises:
            BackendError: The runner is closed, or the execution failed.
        """
        with self._running():
            self._require_sound()
            array = detach(values)
            if array.ndim == len(self._input.shape) - 1:
                array = array[None]
            result = empty_like(array, (len(array), *map(int, self._output.shape[1:])))
            used: dict[int, Slot] = {}
            for start in range(0, len(array), batch_size):
                rows = slice(start, min(start + batch_size, len(array)))
                with self._borrow() as slot:
                    source = address_of(array[rows], slot.handle)
                    target = address_of(result[rows], slot.handle)  # its memory may still be in use there
                    slot.run_device(source, target, rows.stop - rows.start)
                    used[slot.handle] = slot

            def let_wait(stream: int) -> None:
                with self._gpu.active():
                    for slot in used.values():
                        slot.let_wait(stream)

            return let_caller_wait(result, let_wait)

    def _check(self, feed: Mapping[str, Array]) -> None:
        super()._check(feed)
        found = len(feed[self._input.name])
        if found > self._engine.max_batch:
            raise InputError(
                f"{self._input.name}: found {found} images, expected at most {self._engine.max_batch}, the largest batch "
                f"of engine {self._engine.name}; split them, or build an engine with a larger --max-batch"
            )

    def _execute(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        self._require_sound()
        with self._borrow() as slot:
            return {self._output.name: slot.run_host(feed[self._input.name])}

    def _execute_stages(self, feed: Mapping[str, Array]) -> tuple[dict[str, Array], StageTimes]:
        self._require_sound()
        with self._borrow() as slot:
            tokens, times = slot.run_stages(feed[self._input.name])
        return {self._output.name: tokens}, times

    def _release(self) -> None:
        try:
            self._made.close()
        except CudaError as error:  # after a failure for good: the process ends with what it holds
            text = "%s was closed, not everything could be freed: %s"
            _LOGGER.warning(text, self.description, error, extra={"pargo_event": "release_failed"})

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[Slot]:
        """Yield a free slot, and note if the GPU failed for good."""
        with self._slots.borrow() as slot:
            try:
                yield slot
            except CudaError as error:
                raise BackendError(f"{self.description}: {error}; open the bundle again") from error
            finally:
                self._failure = self._failure or slot.failure

    def _require_sound(self) -> None:
        if self._failure:
            raise BackendError(
                f"{self.description} failed for good: {self._failure}; start the program again, what ran on the GPU "
                "in this process cannot go on"
            )

    def _make_slots(self, loaded: LoadedEngine, streams: int, made: contextlib.ExitStack) -> list[Slot]:
        buckets, slots = choose_buckets(self._engine.profiles), []
        for _ in range(streams):
            try:
                slot = Slot(self._gpu, loaded, buckets, self.signature)
            except CudaError as error:
                if not is_out_of_memory(error):
                    raise
                with self._gpu.active():
                    free = self._gpu.free_bytes() / 2**20
                raise BackendError(
                    f"the memory of {self._gpu.name} is too small for engine {self._engine.name} with {streams} "
                    f"stream(s): {error}, {free:.0f} MiB are free; open it with fewer streams, close what else uses "
                    "the GPU, or build an engine with a smaller --max-batch"
                ) from error
            made.callback(slot.close)
            slots.append(slot)
        return slots

    def _unload(self, loaded: LoadedEngine) -> None:
        with self._gpu.active():
            loaded.close()
