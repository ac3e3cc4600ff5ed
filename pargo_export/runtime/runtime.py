"""Open a bundle and turn pictures into visual tokens."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.bundle import Bundle, Engine, Variant
from pargo_export.config import ModelConfig
from pargo_export.errors import BundleError, ConfigError
from pargo_export.preprocessing import PictureThreads
from pargo_export.runtime.computation import Computation, Spent
from pargo_export.runtime.events import Events, Listener, RunEvent
from pargo_export.runtime.inputs import InputReader, Takes
from pargo_export.runtime.queue_options import QueueOptions
from pargo_export.runtime.request_queue import WhenFull
from pargo_export.runtime.runner import Array, Runner, RunnerOptions, StageTimes
from pargo_export.runtime.selection import Candidate, open_runner, select
from pargo_export.runtime.submission import Submissions
from pargo_export.signature import Signature, TensorSpec

__all__ = ["Runtime"]


class Runtime:
    """A graph of a bundle, ready to run. Use `Runtime.open`.

    ::

        with Runtime.open("bundle") as runtime:
            visual_tokens = runtime.encode(["street.jpg", "dog.png"])  # float32 [2, Q, C_llm]

    Every method may be called from several threads at once. A runtime belongs to the process that opened it: in a child
    of `os.fork` every method raises `BackendError`, and `close` does nothing; open the bundle there, or start children
    with the method `spawn` of multiprocessing.

    Attributes:
        bundle: Where the graph is from.
        variant: The graph.
        backend: Name of the backend that runs it.
        engine: The TensorRT engine that runs; `None` on other backends.
        max_batch: Images in one run at most: what the variant, or the engine, was made for.
        config: The model.
        signature: Inputs and outputs of the graph.
    """

    def __init__(
        self, bundle: Bundle, choice: Candidate, runner: Runner, options: QueueOptions | None = None
    ) -> None:
        options = options or QueueOptions()
        self.bundle = bundle
        self.variant: Variant = choice.variant
        self.backend: str = choice.backend.name
        self.engine: Engine | None = choice.engine
        self.config: ModelConfig = bundle.manifest.model
        self.signature: Signature = choice.variant.signature
        self._runner = runner
        self.max_batch: int = min(self.variant.max_batch, runner.max_batch or self.variant.max_batch)
        preprocessing = bundle.manifest.preprocessing
        pixels = ("batch", 3, preprocessing.height, preprocessing.width)
        own = self.signature.inputs[0]
        takes: Takes = "features" if self.variant.component == "projector" else self.variant.input
        if takes != "features" and own.shape[1:] != pixels[1:]:
            raise BundleError(
                f"variant {self.variant.name!r} takes pixels {list(own.shape)}, but the bundle prepares pictures of "
                f"{list(pixels)}; export again"
            )
        self._threads = PictureThreads(options.preprocess_threads)
        read = functools.partial(
            InputReader,
            preprocessing=preprocessing,
            threads=self._threads,
            jpeg_draft=options.jpeg_draft,
            check_finite=options.check_finite,
        )
        # As the signature says, for `prepare`; normalised pixels, for `preprocess`; what the runner takes.
        self._reader = read(own, takes)
        self._float_reader = read(TensorSpec(name="pixel_values", dtype="float32", shape=pixels), "float")
        feeder = read(own, takes, keeps_uint8=runner.normalizes)
        what = f"variant {self.variant.name!r}" if self.engine is None else f"engine {self.engine.name!r}"
        self._computation = Computation(runner, self.signature, feeder, max_batch=self.max_batch, what=what)
        self._events = Events()
        self._submissions = Submissions(
            self._computation, self._events, max_pending=options.max_pending, gather_s=options.gather_ms / 1e3
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
        max_pending: int = 16,
        gather_ms: float = 0.0,
        preprocess_threads: int | None = None,
        jpeg_draft: bool = False,
        check_finite: bool = True,
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
            max_pending: Submissions that may wait, see `submit`; each keeps its images in memory.
            gather_ms: How long, in milliseconds, a submission waits for others to run with, up to `max_batch` images;
                0: every one runs for itself. Worth it where a batch takes less time than its images one by one.
            preprocess_threads: Threads that decode the pictures of one call side by side; by default every physical core
                that this process may use, at most 8. One picture alone is decoded by the calling thread.
            jpeg_draft: Decode large JPEGs at 1/2, 1/4 or 1/8 of their size where that leaves twice what the model
                needs: several times faster, and not the same pixels as in the export; docs/runtime.md says how far off.
            check_finite: Refuse float arrays with NaN or infinity. Looking for them costs a pass over the memory; without
                it the tokens of such an array are NaN, or, in an 8-bit graph, wrong.

        Raises:
            BackendError: Nothing can run the bundle here, or the named backend or variant cannot; the message
                says why for each.
            BundleError: There is no valid bundle, or no such variant or engine.
            ConfigError: `threads`, `streams`, `max_pending` or `preprocess_threads` is not positive, or `gather_ms`
                negative.
            IntegrityError: A file of the bundle is not the one that the manifest describes.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: found {threads}, expected at least 1, or None for every core")
        if streams < 1:
            raise ConfigError(f"streams: found {streams}, expected at least 1")
        queueing = QueueOptions(max_pending, gather_ms, preprocess_threads, jpeg_draft, check_finite)
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
            return cls(bundle, choice, runner, queueing)
        except BaseException:
            runner.close()
            raise

    def __repr__(self) -> str:
        shapes = [
            f"{spec.name}{list(spec.shape)}" for spec in (self.signature.inputs[0], self.signature.outputs[0])
        ]
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

        An `encode` of another thread ends with its current batch; if it has more of them, it fails. When this returns,
        no thread of the runtime is left, but for the one that calls: `close` may be called by a callback of a future.
        """
        if self._runner.is_inherited:
            return
        self._submissions.close()
        self._runner.close()
        self._threads.close()

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
        return self._watched(self._computation.encode, images, batch_size)

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
        return self._watched(
            lambda given, size, spent: self._computation.encode_into(given, out, size, spent),
            images,
            batch_size,
        )

    def submit(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        when_full: WhenFull = "wait",
    ) -> Future[Any]:
        """Compute as `encode` does, in the background.

        One submission runs at a time, or with `gather_ms` several in one run; up to `max_pending` others wait. Do not
        change the images before the future is done. `cancel` of the future works until the submission begins, and
        makes room at once; `close` cancels what has not begun. Callbacks of the future run in the thread that computes.

        Args:
            images: As for `encode`.
            batch_size: As for `encode`; a submission with one is never gathered with others.
            priority: Higher ones first, equal ones in the order of submission.
            deadline_s: Seconds from this call within which the computation must begin. It is not computed later: the
                future has a `DeadlineError`, at the latest when it would be its turn.
            when_full: If `max_pending` submissions wait: `"wait"` for room, at most until the deadline; `"refuse"` this
                one; or `"replace"`: the oldest one of the lowest priority gives way, and its future has an
                `OverloadError`. Where all that wait have a higher priority, this one is refused.

        Raises:
            BackendError: The runtime is closed, or was opened before `os.fork`. Every other error of `encode` comes from
                the future.
            ConfigError: `deadline_s` is not positive, or `when_full` is unknown.
            OverloadError: It was refused.
        """
        self._runner.check_process()
        return self._submissions.submit(images, batch_size, priority, deadline_s, when_full)

    @property
    def num_pending(self) -> int:
        """How many submissions wait; those that were begun do not count."""
        return len(self._submissions)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hand `listener` an event for every call of `encode` and `encode_into`, and for what becomes of submissions.

        It is called in the thread that computes, before the result is handed over: it must be quick, and thread-safe.
        What it raises is logged, and changes nothing.

        Args:
            listener: Takes a `runtime.events.RunEvent`.

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(listener)

    def preprocess(self, images: Any) -> NDArray[np.float32]:
        """Prepare pictures as `encode` does: normalised pixels, float32 `[B, 3, H, W]`, whatever the graph takes.

        Raises:
            ImageError: A picture cannot be read.
            InputError: As for `encode`.
        """
        self._runner.check_process()
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
        self._runner.check_process()
        reading = self._reader.read(images)
        return self._reader.prepare(reading, 0, len(reading))

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once on arrays that fit its `signature`; the outputs belong to the caller.

        Raises:
            BackendError: The runtime is closed, or the execution failed.
            InputError: The feed does not fit the signature.
        """
        return self._runner.run(feed)

    @property
    def description(self) -> str:
        """Backend, device and settings, for people."""
        return self._runner.description

    @property
    def times_stages(self) -> bool:
        """Whether the backend tells what `run_stages` returns: those that run on a GPU by themselves do."""
        return self._runner.times_stages

    def run_stages(self, feed: Mapping[str, Array]) -> tuple[dict[str, Array], StageTimes]:
        """Compute as `run` does, and tell by events of the device how long copies and computation took: for measurements.

        Raises:
            BackendError: The backend cannot tell (`times_stages`), the runtime is closed, or the execution failed.
            InputError: The feed does not fit the signature.
        """
        return self._runner.run_stages(feed)

    def _watched(
        self, compute: Callable[[Any, int | None, Spent], Any], images: Any, batch_size: int | None
    ) -> Any:
        """Compute, and tell the listeners, if there are any."""
        self._runner.check_process()
        spent = Spent()
        try:
            result = compute(images, batch_size, spent)
        except Exception as error:
            if self._events.wanted:
                self._tell(spent, error)
            raise
        if self._events.wanted:
            self._tell(spent)
        return result

    def _tell(self, spent: Spent, error: Exception | None = None) -> None:
        self._events.publish(
            RunEvent(
                kind="run" if error is None else "failed",
                num_images=spent.num_images,
                queue_s=0.0,
                preprocess_s=spent.preprocess_s,
                run_s=spent.run_s,
                error="" if error is None else f"{type(error).__name__}: {error}",
            )
        )
