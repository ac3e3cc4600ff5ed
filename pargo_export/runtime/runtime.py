"""Open a bundle and turn pictures into visual tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.bundle import Bundle, Engine, Variant
from pargo_export.config import ModelConfig
from pargo_export.errors import BundleError, ConfigError, InputError
from pargo_export.runtime.arrays import describe, is_on_cuda, to_library
from pargo_export.runtime.inputs import InputReader, Reading, Takes
from pargo_export.runtime.runner import Array, Runner, RunnerOptions
from pargo_export.runtime.selection import Candidate, open_runner, select
from pargo_export.runtime.submission import Worker
from pargo_export.signature import Signature, TensorSpec

__all__ = ["Runtime"]


class Runtime:
    """A graph of a bundle, ready to run. Use `Runtime.open`.

    ::

        with Runtime.open("bundle") as runtime:
            visual_tokens = runtime.encode(["street.jpg", "dog.png"])  # float32 [2, Q, C_llm]

    Every method may be called from several threads at once.

    Attributes:
        bundle: Where the graph is from.
        variant: The graph.
        backend: Name of the backend that runs it.
        engine: The TensorRT engine that runs; `None` on other backends.
        max_batch: Images in one run at most: what the variant, or the engine, was made for.
        config: The model.
        signature: Inputs and outputs of the graph.
    """

    def __init__(self, bundle: Bundle, choice: Candidate, runner: Runner) -> None:
        self.bundle = bundle
        self.variant: Variant = choice.variant
        self.backend: str = choice.backend.name
        self.engine: Engine | None = choice.engine
        self.config: ModelConfig = bundle.manifest.model
        self.signature: Signature = choice.variant.signature
        self._runner = runner
        self.max_batch: int = min(self.variant.max_batch, runner.max_batch or self.variant.max_batch)
        self._worker = Worker()
        self._output = self.signature.outputs[0]
        preprocessing = bundle.manifest.preprocessing
        pixels = ("batch", 3, preprocessing.height, preprocessing.width)
        own = self.signature.inputs[0]
        takes: Takes = "features" if self.variant.component == "projector" else self.variant.input
        if takes != "features" and own.shape[1:] != pixels[1:]:
            raise BundleError(
                f"variant {self.variant.name!r} takes pixels {list(own.shape)}, but the bundle prepares pictures of "
                f"{list(pixels)}; export again"
            )
        # As the signature says, for `prepare`; what the runner takes; normalised pixels, for `preprocess`.
        self._reader = InputReader(own, takes, preprocessing)
        self._feeder = InputReader(own, takes, preprocessing, keeps_uint8=runner.normalizes)
        self._float_reader = InputReader(
            TensorSpec(name="pixel_values", dtype="float32", shape=pixels), "float", preprocessing
        )

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        backend: str = "auto",
        variant: str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        allow_spinning: bool = False,
        warmup: bool = True,
        verify: bool = True,
        streams: int = 1,
    ) -> Self:
        """Open the best variant of a bundle on the best backend of this machine.

        Args:
            bundle: The directory, or the opened bundle.
            backend: `"auto"`, `"tensorrt"` or `"tensorrt-rtx"` (an engine that was built for this GPU), `"cuda"` (an
                NVIDIA GPU, by the kernels of this project), `"onnxruntime"` (CPU), `"onnxruntime-cuda"`, `"openvino"`
                (CPU) or `"openvino-bf16"`: CPU, what is not quantized in bfloat16 whatever the graph says; never chosen
                by `"auto"`.
            variant: Name of the variant; by default the whole model, in the precision that suits the machine.
            engine: Name of a TensorRT engine of the bundle; it then runs even if its evidence failed. By default the
                fastest of those that were built for this machine.
            threads: CPU threads of one run; by default every physical core that this process may use.
            allow_spinning: Let idle CPU threads wait busily. Worth it only if the cores have nothing else
                to do: with several runtimes on few cores it makes all of them slower.
            warmup: Run once on zeros, so that the first picture does not pay for what is set up late.
            verify: Hash the graph and its weights before loading them (about a second a gigabyte). Without
                it only their sizes are compared with the manifest; TensorRT engines are hashed always, they are code.
            streams: Batches that a GPU (`"cuda"`, `"tensorrt"`, `"tensorrt-rtx"`) computes at the same time, for callers
                in several threads; each takes memory of its own.

        Raises:
            BackendError: Nothing can run the bundle here, or the named backend or variant cannot; the message
                says why for each.
            BundleError: There is no valid bundle, or no such variant or engine.
            ConfigError: `threads` or `streams` is not positive.
            IntegrityError: A file of the bundle is not the one that the manifest describes.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: found {threads}, expected at least 1, or None for every core")
        if streams < 1:
            raise ConfigError(f"streams: found {streams}, expected at least 1")
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        options = RunnerOptions(
            threads=threads,
            allow_spinning=allow_spinning,
            verify=verify,
            warmup=warmup,
            streams=streams,
            accept_failed=engine is not None,
        )
        selection = select(bundle, backend=backend, variant=variant, engine=engine)
        choice, runner = open_runner(bundle, selection, options)
        try:
            return cls(bundle, choice, runner)
        except BaseException:
            runner.close()
            raise

    def __repr__(self) -> str:
        shapes = [f"{spec.name}{list(spec.shape)}" for spec in (self.signature.inputs[0], self._output)]
        return (
            f"Runtime({str(self.bundle.path)!r}, variant={self.variant.name!r}, backend={self.backend!r}, "
            f"{' -> '.join(shapes).replace(chr(39), '')}, {self._runner!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what was submitted and not begun, wait for the rest, free the backend; again does nothing.

        An `encode` of another thread ends with its current batch; if it has more of them, it fails.
        """
        self._worker.close()
        self._runner.close()

    def encode(self, images: Any, *, batch_size: int | None = None) -> Any:
        """Compute the visual tokens of one or many images (of an encoder: their image features).

        Args:
            images: Paths, encoded bytes, Pillow images, arrays or tensors, one or a list, mixed at will and of
                any size. uint8 arrays are pictures, channels last; float arrays are normalised pixels
                `[B, 3, H, W]`, or image features `[B, N, C]` for a projector. See `runtime.inputs`.
            batch_size: Images in one run of the graph; by default, and at most, what the variant was made for.
                More images are split, the last run may be smaller. Pictures are decoded run by run.

        Returns:
            float32 `[B, Q, C_llm]`, B = 1 for a single image; an array of the caller's library and device if
            the input was made of its arrays, else a NumPy array. It belongs to the caller. One array on a GPU that
            is as the graph takes it never leaves the GPU if the backend runs there; it is not searched for NaN.

        Raises:
            BackendError: The runtime is closed, or the execution failed.
            ImageError: A picture cannot be read.
            InputError: Nothing was handed, an array does not fit, has values that are not finite, or
                `batch_size` is out of range.
        """
        may_stay = self._runner.takes_device_arrays and is_on_cuda(images)
        if may_stay and self._feeder.fits_on_device(images) and self._runner.takes_device_array(images):
            tokens = self._runner.run_on_device(images, self._batch_size(batch_size))
            return to_library(tokens, images)
        reading, size = self._plan(images, batch_size)
        if len(reading) <= size:
            result = self._run(reading, 0, len(reading))
        else:
            result = np.empty(self._output_shape(reading), np.float32)
            self._fill(result, reading, size)
        return result if reading.like is None else to_library(result, reading.like)

    def encode_into(
        self, images: Any, out: NDArray[np.float32], *, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Compute as `encode` does, into `out`, and return it.

        Args:
            images: As for `encode`.
            out: float32 `[B, Q, C_llm]`, C-contiguous and writable. After an error its content is undefined.
            batch_size: As for `encode`.

        Raises:
            InputError: As for `encode`, or `out` does not fit.
        """
        reading, size = self._plan(images, batch_size)
        expected = self._output_shape(reading)
        found = describe(out)
        if found != f"float32{list(expected)}":
            raise InputError(f"out: found {found}, expected a NumPy array float32{list(expected)}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            problem = "read-only" if out.flags.c_contiguous else "not C-contiguous"
            raise InputError(f"out: found an array that is {problem}; allocate it with numpy.empty")
        self._fill(out, reading, size)
        return out

    def submit(self, images: Any, *, batch_size: int | None = None) -> Future[Any]:
        """Compute as `encode` does, in the background, in the order of submission.

        Waits while 16 submissions are unfinished: a producer cannot outrun the model without bound. Do not
        change the images before the future is done. `close` cancels what has not begun.

        Raises:
            BackendError: The runtime is closed. Every other error of `encode` comes from the future.
        """
        return self._worker.submit(self.encode, images, batch_size=batch_size)

    def preprocess(self, images: Any) -> NDArray[np.float32]:
        """Prepare pictures as `encode` does: normalised pixels, float32 `[B, 3, H, W]`, whatever the graph takes.

        Raises:
            ImageError: A picture cannot be read.
            InputError: As for `encode`.
        """
        reading = self._float_reader.read(images)
        return self._float_reader.prepare(reading, 0, len(reading))

    def prepare(self, images: Any) -> Array:
        """Prepare images as this graph takes them: for `run`, or to keep the decoding out of a measurement.

        Returns:
            float32 `[B, 3, H, W]`; uint8 for a graph that normalises by itself; `[B, N, C]` for a projector.

        Raises:
            ImageError: A picture cannot be read.
            InputError: As for `encode`.
        """
        reading = self._reader.read(images)
        return self._reader.prepare(reading, 0, len(reading))

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once on arrays that fit its `signature`; the outputs belong to the caller.

        Raises:
            BackendError: The runtime is closed, or the execution failed.
            InputError: The feed does not fit the signature.
        """
        return self._runner.run(feed)

    def _plan(self, images: Any, batch_size: int | None) -> tuple[Reading, int]:
        """Read the input and decide on the images in one run."""
        size = self._batch_size(batch_size)
        return self._feeder.read(images), size

    def _batch_size(self, batch_size: int | None) -> int:
        """Return the images in one run: what the caller asked for, or the largest batch."""
        largest = self.max_batch
        if batch_size is not None and not 1 <= batch_size <= largest:
            what = f"variant {self.variant.name!r}" if self.engine is None else f"engine {self.engine.name!r}"
            raise InputError(
                f"batch_size: found {batch_size}, expected 1 to {largest}, the largest that {what} was made for; more "
                "images are split by themselves"
            )
        return batch_size or largest

    def _run(self, reading: Reading, start: int, stop: int) -> Array:
        feed = {self.signature.inputs[0].name: self._feeder.prepare(reading, start, stop)}
        return self._runner.run(feed)[self._output.name]

    def _fill(self, out: Array, reading: Reading, size: int) -> None:
        for start in range(0, len(reading), size):
            stop = min(start + size, len(reading))
            out[start:stop] = self._run(reading, start, stop)

    def _output_shape(self, reading: Reading) -> tuple[int, ...]:
        return (len(reading), *map(int, self._output.shape[1:]))
