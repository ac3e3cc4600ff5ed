"""What every backend offers: one graph, ready to run on one device."""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.errors import BackendError
from pargo_export.signature import Signature

__all__ = ["Array", "Runner", "RunnerOptions", "StageTimes"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class RunnerOptions:
    """How to open a graph; a backend ignores what does not concern it.

    Attributes:
        threads: CPU threads of one run; `None` takes every core that this process may use.
        allow_spinning: Let idle CPU threads wait busily for the next operation. Saves microseconds an
            operation when the cores belong to this session alone, and costs much more than that when
            several sessions, or other programs, share them.
        verify: Compare the SHA-256 of the files with the manifest before loading them; sizes always are.
        streams: Batches that a GPU computes at the same time, each with buffers of its own; further callers
            wait. Backends for CPUs take as many callers as there are.
        warmup: Run once when opened; what only the first run would show, such as a GPU without kernels
            for it, is then found while another backend can still be chosen.
        engine: Name of the TensorRT engine to run; filled in by the selection for backends that run engines.
        accept_failed: Run the engine even if its evidence failed: it was asked for by name.
    """

    threads: int | None = None
    allow_spinning: bool = False
    verify: bool = True
    warmup: bool = True
    streams: int = 1
    engine: str | None = None
    accept_failed: bool = False


@dataclass(frozen=True)
class StageTimes:
    """Where the time of one run went on a device, by events in its stream; milliseconds.

    Attributes:
        host_to_device_ms: From the begin of the copy of the input to its end; 0 where nothing is copied.
        compute_ms: From there to the visual tokens on the device.
        device_to_host_ms: From there to the visual tokens in the memory of the host; 0 where nothing is copied.
    """

    host_to_device_ms: float
    compute_ms: float
    device_to_host_ms: float


class Runner(ABC):
    """Executor of one graph; a context manager that releases the device on exit.

    It belongs to the process that opened it. After `os.fork` the child has neither the threads of the backend nor its
    device: there, every run is refused, and `close` does nothing.

    A backend implements `_execute` and `_release`. `_execute` may be called from several threads at
    once: a backend whose device cannot do that takes a lock.

    Attributes:
        signature: Inputs and outputs.
        description: Backend, device and settings, for people.
        normalizes: Takes uint8 pixels as well where the signature says normalised ones, and normalises
            them on its device.
        takes_device_arrays: Has `run_on_device`.
        times_stages: Has `run_stages`.
        max_batch: Largest batch of one run, where that may be less than the variant was made for; else `None`.
    """

    normalizes: bool = False
    takes_device_arrays: bool = False
    times_stages: bool = False
    max_batch: int | None = None

    def __init__(self, signature: Signature, description: str) -> None:
        self.signature = signature
        self.description = description
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._state = threading.Condition(self._lock)
        self._guard = _Guard(self._begin_run, self._end_run)
        self._num_running = 0
        self._closed = False
        self._released = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.description}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs, by name.

        The feed is only read. The outputs belong to the caller: the runner keeps no reference to them
        and never writes to them again.

        Args:
            feed: One array an input, with the name, dtype and shape of the signature.

        Raises:
            InputError: The feed does not fit the signature.
            BackendError: The runner is closed, or the execution failed.
        """
        self._check(feed)
        with self._running():
            return self._execute(feed)

    def run_fitting(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Compute as `run` does, of a feed that was made to fit the signature, without comparing it again.

        Raises:
            BackendError: The runner is closed, or the execution failed.
        """
        with self._running():
            return self._execute(feed)

    def takes_device_array(self, array: Any) -> bool:  # noqa: ARG002 - what others need
        """Whether `run_on_device` takes an array of a GPU, whose dtype and shape suit the model; else it comes by the host."""
        return self.takes_device_arrays

    def run_on_device(self, values: Any, batch_size: int) -> Any:  # noqa: ARG002 - what others need
        """Compute an array that lies on the device of this runner, into one there, batch by batch.

        Args:
            values: One array, `[B, ...]`, as the input of the signature.
            batch_size: Images in one run.

        Raises:
            BackendError: The backend has no such way, the runner is closed, or the execution failed.
        """
        raise BackendError(f"{self.description} takes arrays on the host only, found {type(values).__name__}")

    def run_stages(self, feed: Mapping[str, Array]) -> tuple[dict[str, Array], StageTimes]:
        """Compute as `run` does, with events between the copies and the computation: for measurements.

        Args:
            feed: As for `run`.

        Raises:
            InputError: The feed does not fit the signature.
            BackendError: The backend cannot tell, the runner is closed, or the execution failed.
        """
        self._check(feed)
        with self._running():
            return self._execute_stages(feed)

    @property
    def is_inherited(self) -> bool:
        """Whether this process got the runner by `os.fork`, and cannot use it."""
        return os.getpid() != self._process_id

    def check_process(self) -> None:
        """Refuse to be used in a forked child, where another thread's lock, or a run, would never end.

        Raises:
            BackendError: `is_inherited`.
        """
        if self.is_inherited:
            raise BackendError(
                f"opened in process {self._process_id}, used in process {os.getpid()}, which was forked from it without "
                f"the threads of the backend ({self.description}); open the bundle in the child, best before anything "
                "is opened in the parent, or start children with multiprocessing's 'spawn'"
            )

    def warm_up(self) -> None:
        """Run once on zeros, every dynamic axis of size 1, so that later runs find everything set up.

        Raises:
            BackendError: The runner is closed, or the execution failed.
        """
        self.run(
            {
                spec.name: np.zeros([1 if isinstance(size, str) else size for size in spec.shape], spec.dtype)
                for spec in self.signature.inputs
            }
        )

    def close(self) -> None:
        """Refuse new runs, wait for those in progress, and release the device; again does nothing."""
        if self.is_inherited:
            return
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: self._num_running == 0)
            if not self._released:
                self._released = True
                self._release()

    def _check(self, feed: Mapping[str, Array]) -> None:
        """Compare a feed with the signature.

        Raises:
            InputError: It does not fit.
        """
        self.signature.check_feed(feed)

    @abstractmethod
    def _execute(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs of a feed that fits the signature, into new arrays.

        Raises:
            BackendError: The execution failed.
        """

    def _execute_stages(self, feed: Mapping[str, Array]) -> tuple[dict[str, Array], StageTimes]:  # noqa: ARG002
        """Compute as `_execute` does and tell the times; of a backend that `times_stages`.

        Raises:
            BackendError: The backend cannot tell, or the execution failed.
        """
        raise BackendError(f"{self.description} does not tell the times of its stages")

    @abstractmethod
    def _release(self) -> None:
        """Free what the backend holds; called once, when nothing runs."""

    def _running(self) -> contextlib.AbstractContextManager[None]:
        """Count a run in progress, for `close` to wait for.

        Raises:
            BackendError: The runner is closed, or was opened before `os.fork`.
        """
        return self._guard

    def _begin_run(self) -> None:
        self.check_process()
        with self._lock:
            if self._closed:
                raise BackendError(f"the runner is closed ({self.description}); open the bundle again")
            self._num_running += 1

    def _end_run(self) -> None:
        with self._lock:
            self._num_running -= 1
            if self._closed:
                self._state.notify_all()


class _Guard(contextlib.AbstractContextManager[None]):
    """Around every run of one runner, from any thread: a generator would take longer than all that it does."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> None:
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
