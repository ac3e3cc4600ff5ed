"""Compute what was submitted, in a thread of its own, one run after the other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, get_args

from pargo_export.errors import BackendError, ConfigError, DeadlineError, OverloadError
from pargo_export.runtime.computation import Computation, Spent
from pargo_export.runtime.events import EventKind, Events, RunEvent
from pargo_export.runtime.gathering import Gatherer, Prepared, run_together
from pargo_export.runtime.request_queue import Request, RequestQueue, Ticket, WhenFull

__all__ = ["Submissions"]


class Submissions:
    """A queue of requests and the thread that computes them, which begins with the first of them.

    Args:
        computation: What computes.
        events: Who is told.
        max_pending: Requests that may wait; at least 1.
        gather_s: How long a request waits for others that are computed in the same run; 0: every one for itself.
    """

    def __init__(
        self, computation: Computation, events: Events, *, max_pending: int, gather_s: float
    ) -> None:
        self._computation = computation
        self._events = events
        self._queue = RequestQueue(max_pending)
        self._gatherer = Gatherer(computation, self._queue, gather_s) if gather_s > 0 else None
        # An executor, because the interpreter lets it finish before it exits, and the thread ends with its executor.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pargo-export")
        self._worker: int | None = None

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def submit(
        self,
        images: Any,
        batch_size: int | None,
        priority: int,
        deadline_s: float | None,
        when_full: WhenFull,
    ) -> Future[Any]:
        """Let a request in; see `Runtime.submit`.

        Raises:
            BackendError: Closed.
            ConfigError: `deadline_s` is not positive, or `when_full` is unknown.
            OverloadError: There is no room.
        """
        submitted = time.perf_counter()
        if deadline_s is not None and not deadline_s > 0:
            raise ConfigError(f"deadline_s: found {deadline_s}, expected more than 0 seconds, or None")
        if when_full not in get_args(WhenFull):
            raise ConfigError(
                f"when_full: found {when_full!r}, expected one of {', '.join(get_args(WhenFull))}"
            )
        ticket = Ticket(self._queue)
        deadline = None if deadline_s is None else submitted + deadline_s
        request = Request(images, batch_size, priority, submitted, deadline, ticket)
        try:
            admission = self._queue.put(request, when_full)
        except OverloadError as error:
            self._tell("refused", request, error)
            raise
        if admission.wakes:
            self._wake(ticket)
        for other in admission.displaced:
            if other.is_expired:
                self._expire(other)
            else:
                self._fail("replaced", other, OverloadError("a later submission took the place of this one"))
        if not admission.is_admitted:
            self._expire(request)
        return ticket

    def close(self) -> None:
        """Cancel what waits and wait for what runs; again does nothing."""
        for request in self._queue.close():
            request.future.cancel()
            request.future.set_running_or_notify_cancel()
        # A callback of a future runs in the worker, which cannot wait for itself.
        self._executor.shutdown(wait=threading.get_ident() != self._worker)

    def _wake(self, ticket: Ticket) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:  # closed meanwhile, or the interpreter exits
            self._queue.remove(ticket)
            raise BackendError("the runtime is closed; open the bundle again") from error

    def _work(self) -> None:
        """Compute until nothing waits."""
        self._worker = threading.get_ident()
        prepared: Prepared | None = None
        while True:
            if prepared is None:
                request = self._queue.take()
                if request is None:
                    return
                prepared = self._begin(request)
            if prepared is not None:
                prepared = self._run(prepared)

    def _begin(self, request: Request) -> Prepared | None:
        """Begin a request that left the queue; `None`: it was cancelled, is too late, or its images are wrong."""
        if request.is_expired:
            self._expire(request)
            return None
        if not request.future.set_running_or_notify_cancel():
            return None
        if self._gatherer is None:
            return Prepared(request, Spent())
        try:
            return self._gatherer.prepare(request)
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller who waits for it
            self._fail("failed", request, error, begun=True)
            return None

    def _run(self, first: Prepared) -> Prepared | None:
        """Compute a request, alone or with others; return one that was begun meanwhile and did not fit."""
        if self._gatherer is None or first.pixels is None:
            self._run_alone(first)
            return None
        group, left = self._gatherer.gather(first, self._begin)
        in_time = [prepared for prepared in group if not prepared.request.is_expired]
        for prepared in group:
            if prepared not in in_time:
                self._expire(prepared.request, begun=True)
        if in_time:
            self._run_group(in_time)
        return left

    def _run_alone(self, prepared: Prepared) -> None:
        request, spent = prepared.request, prepared.spent
        try:
            tokens = self._computation.encode(request.images, request.batch_size, spent)
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller who waits for it
            self._tell("failed", request, error, spent)
            request.future.set_exception(error)
            return
        self._tell("run", request, None, spent)
        request.future.set_result(tokens)

    def _run_group(self, group: list[Prepared]) -> None:
        oldest = min((prepared.request for prepared in group), key=lambda request: request.submitted)
        spent = Spent()
        spent.num_images = sum(prepared.spent.num_images for prepared in group)
        spent.preprocess_s = sum(prepared.spent.preprocess_s for prepared in group)
        try:
            results = run_together(self._computation, group, spent)
        except BaseException as error:  # noqa: BLE001 - it belongs to the callers who wait for it
            self._tell("failed", oldest, error, spent, len(group))
            for prepared in group:
                prepared.request.future.set_exception(error)
            return
        self._tell("run", oldest, None, spent, len(group))
        for prepared, tokens in zip(group, results, strict=True):
            prepared.request.future.set_result(tokens)

    def _expire(self, request: Request, *, begun: bool = False) -> None:
        waited_ms = (time.perf_counter() - request.submitted) * 1e3
        allowed_ms = ((request.deadline or 0) - request.submitted) * 1e3
        self._fail(
            "expired",
            request,
            DeadlineError(
                f"not begun after {waited_ms:.1f} ms, expected within {allowed_ms:.1f} ms (deadline_s); it was not "
                "computed: submit less often, or allow more time"
            ),
            begun=begun,
        )

    def _fail(self, kind: EventKind, request: Request, error: BaseException, *, begun: bool = False) -> None:
        """Tell a future why it is not computed, unless it was cancelled before."""
        if begun or request.future.set_running_or_notify_cancel():
            self._tell(kind, request, error)
            request.future.set_exception(error)

    def _tell(
        self,
        kind: EventKind,
        request: Request,
        error: BaseException | None,
        spent: Spent | None = None,
        num_requests: int = 1,
    ) -> None:
        if not self._events.wanted:
            return
        spent = spent or Spent()
        passed_s = time.perf_counter() - request.submitted
        self._events.publish(
            RunEvent(
                kind=kind,
                num_images=spent.num_images,
                queue_s=max(0.0, passed_s - spent.preprocess_s - spent.run_s),
                preprocess_s=spent.preprocess_s,
                run_s=spent.run_s,
                error="" if error is None else f"{type(error).__name__}: {error}",
                num_requests=num_requests,
            )
        )
