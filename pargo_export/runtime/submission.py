"""Run calls one after the other in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from pargo_export.errors import BackendError

__all__ = ["MAX_PENDING", "Worker"]

MAX_PENDING = 16  # enough to keep one worker busy; each pending call holds its pictures in memory

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One background thread, started by the first call, and a bounded queue before it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pargo-export")
        self._slots = threading.BoundedSemaphore(MAX_PENDING)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; waits while `MAX_PENDING` calls are queued or running.

        Raises:
            BackendError: The worker is closed.
        """
        self._slots.acquire()
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except RuntimeError as error:
            self._slots.release()
            raise BackendError("the runtime is closed; open the bundle again") from error
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def close(self) -> None:
        """Cancel the queued calls and wait for the running one; again does nothing."""
        self._executor.shutdown(wait=True, cancel_futures=True)
