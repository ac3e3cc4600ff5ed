"""From images to visual tokens on one runner: what `encode` and what was submitted have in common."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pargo_export.errors import InputError
from pargo_export.runtime.arrays import describe, is_on_cuda, to_library
from pargo_export.runtime.inputs import InputReader, Reading
from pargo_export.runtime.runner import Array, Runner
from pargo_export.signature import Signature

__all__ = ["Computation", "Spent"]


class Spent:
    """Where the time of one call goes, as it goes; seconds.

    Attributes:
        num_images: Images of the call; 0 until they were looked at.
        preprocess_s: To read, decode and fit the pictures.
        run_s: From handing pixels to the backend to having the tokens.
    """

    __slots__ = ("num_images", "preprocess_s", "run_s")

    def __init__(self) -> None:
        self.num_images = 0
        self.preprocess_s = 0.0
        self.run_s = 0.0


class Computation:
    """Plans, prepares and runs; may be used from several threads.

    Args:
        runner: Executor of the graph.
        signature: Inputs and outputs of the graph.
        reader: Reads images as the runner takes them.
        max_batch: Images in one run at most.
        what: What `max_batch` is a property of, for messages.

    Attributes:
        max_batch: Images in one run at most.
    """

    def __init__(
        self, runner: Runner, signature: Signature, reader: InputReader, *, max_batch: int, what: str
    ) -> None:
        self.max_batch = max_batch
        self._runner = runner
        self._reader = reader
        self._what = what
        self._input = signature.inputs[0]
        self._output = signature.outputs[0]
        self._input_name, self._output_name = self._input.name, self._output.name

    def encode(self, images: Any, batch_size: int | None, spent: Spent) -> Any:
        """Compute as `Runtime.encode` does, and note in `spent` where the time went."""
        if self.stays_on_device(images):
            size, begin = self.batch_size(batch_size), time.perf_counter()
            spent.num_images = images.shape[0] if len(images.shape) == len(self._input.shape) else 1
            tokens = self._runner.run_on_device(images, size)
            spent.run_s = time.perf_counter() - begin
            return to_library(tokens, images)
        reading, size = self.plan(images, batch_size, spent)
        if len(reading) <= size:
            result = self.run(self.prepare(reading, 0, len(reading), spent), spent)
        else:
            result = np.empty(self._output_shape(reading), np.float32)
            self._fill(result, reading, size, spent)
        return self.hand_over(result, reading)

    def encode_into(self, images: Any, out: Array, batch_size: int | None, spent: Spent) -> Array:
        """Compute as `Runtime.encode_into` does, and note in `spent` where the time went."""
        reading, size = self.plan(images, batch_size, spent)
        expected = self._output_shape(reading)
        found = describe(out)
        if found != f"float32{list(expected)}":
            raise InputError(f"out: found {found}, expected a NumPy array float32{list(expected)}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            problem = "read-only" if out.flags.c_contiguous else "not C-contiguous"
            raise InputError(f"out: found an array that is {problem}; allocate it with numpy.empty")
        self._fill(out, reading, size, spent)
        return out

    def stays_on_device(self, images: Any) -> bool:
        """Whether images lie where the runner computes, as it takes them: they do not come to the host."""
        return (
            self._runner.takes_device_arrays
            and is_on_cuda(images)
            and self._reader.fits_on_device(images)
            and self._runner.takes_device_array(images)
        )

    def plan(self, images: Any, batch_size: int | None, spent: Spent) -> tuple[Reading, int]:
        """Read the input, without decoding, and decide on the images in one run.

        Raises:
            InputError: There is nothing, something that the graph cannot take, or `batch_size` is out of range.
        """
        size = self.batch_size(batch_size)
        reading = self._reader.read(images)
        spent.num_images = len(reading)
        return reading, size

    def batch_size(self, batch_size: int | None) -> int:
        """Return the images in one run: what the caller asked for, or the largest batch.

        Raises:
            InputError: It is out of range.
        """
        if batch_size is not None and not 1 <= batch_size <= self.max_batch:
            raise InputError(
                f"batch_size: found {batch_size}, expected 1 to {self.max_batch}, the largest that {self._what} was made "
                "for; more images are split by themselves"
            )
        return batch_size or self.max_batch

    def prepare(self, reading: Reading, start: int, stop: int, spent: Spent) -> Array:
        """Decode and prepare images as the runner takes them.

        Raises:
            ImageError: A picture cannot be read.
            InputError: A value is not finite.
        """
        begin = time.perf_counter()
        try:
            return self._reader.prepare(reading, start, stop)
        finally:
            spent.preprocess_s += time.perf_counter() - begin

    def run(self, pixels: Array, spent: Spent) -> Array:
        """Run the graph once: float32 `[B, Q, C_llm]`.

        Raises:
            BackendError: The runner is closed, or the execution failed.
        """
        begin = time.perf_counter()
        try:
            return self._runner.run_fitting({self._input_name: pixels})[self._output_name]
        finally:
            spent.run_s += time.perf_counter() - begin

    @staticmethod
    def hand_over(result: Array, reading: Reading) -> Any:
        """Return a result as an array of the library that the images came from."""
        return result if reading.like is None else to_library(result, reading.like)

    def _fill(self, out: Array, reading: Reading, size: int, spent: Spent) -> None:
        for start in range(0, len(reading), size):
            stop = min(start + size, len(reading))
            out[start:stop] = self.run(self.prepare(reading, start, stop, spent), spent)

    def _output_shape(self, reading: Reading) -> tuple[int, ...]:
        return (len(reading), *map(int, self._output.shape[1:]))
