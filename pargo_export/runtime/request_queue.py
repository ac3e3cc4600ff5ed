"""A bounded queue of submissions: the most important first, among equals the oldest."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pargo_export.errors import BackendError, OverloadError

__all__ = ["Admission", "Request", "RequestQueue", "Ticket", "WhenFull"]

WhenFull: TypeAlias = Literal["wait", "refuse", "replace"]


@dataclass(frozen=True, eq=False)
class Request:
    """A submission.

    Attributes:
        images: As `Runtime.encode` takes them.
        batch_size: As there.
        priority: Higher ones are computed first.
        submitted: When `submit` was called, by `time.perf_counter`; seconds.
        deadline: When its computation must have begun, by the same clock; `None`: whenever.
        future: What the caller holds.
    """

    images: Any
    batch_size: int | None
    priority: int
    submitted: float
    deadline: float | None
    future: Ticket

    @property
    def is_expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.perf_counter() >= self.deadline


@dataclass(frozen=True)
class Admission:
    """What the arrival of a request changed.

    Attributes:
        is_admitted: False: its deadline passed while it waited for room.
        wakes: Nobody takes requests at the moment: somebody must begin to.
        displaced: Requests that left the queue for it; whoever put it tells their futures.
    """

    is_admitted: bool
    wakes: bool = False
    displaced: tuple[Request, ...] = ()


class Ticket(Future[Any]):
    """A future whose cancellation frees its place in the queue at once."""

    def __init__(self, queue: RequestQueue) -> None:
        super().__init__()
        self._queue = queue

    def cancel(self) -> bool:
        """Cancel the request if it was not begun; whether it is cancelled."""
        is_cancelled = super().cancel()
        # Whoever takes a request out of the queue tells those who wait for its future; exactly once.
        if is_cancelled and self._queue.remove(self):
            self.set_running_or_notify_cancel()
        return is_cancelled


class RequestQueue:
    """Requests that wait; may be used from any thread, but one only takes.

    Args:
        max_pending: Requests that may wait.
    """

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, Request]] = []  # -priority, number of arrival
        self._arrivals = itertools.count()
        self._is_idle = True
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, request: Request, when_full: WhenFull) -> Admission:
        """Let a request in.

        Args:
            request: The request; its future is not known to anybody else yet.
            when_full: `"wait"` for room, at most until the deadline; `"refuse"`; or `"replace"` the oldest request of
                the lowest priority, unless that is higher than the one of `request`.

        Raises:
            BackendError: The queue is closed.
            OverloadError: There is no room; not with `"wait"`.
        """
        with self._changed:
            displaced: list[Request] = []
            while True:
                if self._is_closed:
                    raise BackendError("the runtime is closed; open the bundle again")
                if len(self._heap) >= self._max_pending:
                    displaced += self._pull([entry for entry in self._heap if entry[2].is_expired])
                if len(self._heap) < self._max_pending:
                    break
                if when_full == "wait":
                    if request.is_expired:
                        return Admission(is_admitted=False)
                    # The small excess makes sure that the deadline has passed at the last look.
                    left = None if request.deadline is None else request.deadline - time.perf_counter() + 1e-3
                    self._changed.wait(left)
                else:
                    displaced += self._make_room(request, when_full)
            heapq.heappush(self._heap, (-request.priority, next(self._arrivals), request))
            wakes, self._is_idle = self._is_idle, False
            self._changed.notify_all()
            return Admission(is_admitted=True, wakes=wakes, displaced=tuple(displaced))

    def take(self) -> Request | None:
        """Return the next request; `None`, without waiting: there is none, and the next one `wakes`."""
        with self._changed:
            if not self._heap:
                self._is_idle = True
                return None
            return self._pop()

    def take_until(self, end: float) -> Request | None:
        """Return the next request; waits for one until `end` (`time.perf_counter`) or until the queue is closed."""
        with self._changed:
            timeout = max(0.0, end - time.perf_counter())
            self._changed.wait_for(lambda: self._heap or self._is_closed, timeout)
            return self._pop() if self._heap else None

    def remove(self, future: Ticket) -> bool:
        """Take out the request of a future; whether it was here."""
        with self._changed:
            return bool(self._pull([entry for entry in self._heap if entry[2].future is future]))

    def close(self) -> list[Request]:
        """Let nothing in any more, and return what waited; the caller tells their futures."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            return self._pull(list(self._heap))

    def _pop(self) -> Request:
        request = heapq.heappop(self._heap)[2]
        self._changed.notify_all()
        return request

    def _pull(self, entries: list[tuple[int, int, Request]]) -> list[Request]:
        """Take out entries, wherever they are in the heap."""
        if entries:
            numbers = {entry[1] for entry in entries}
            self._heap = [entry for entry in self._heap if entry[1] not in numbers]
            heapq.heapify(self._heap)
            self._changed.notify_all()
        return [entry[2] for entry in entries]

    def _make_room(self, request: Request, when_full: WhenFull) -> list[Request]:
        entry = max(self._heap, key=lambda entry: (entry[0], -entry[1]))
        if when_full == "refuse" or entry[2].priority > request.priority:
            raise OverloadError(
                f"{len(self._heap)} submissions wait already, expected fewer than {self._max_pending}"
                f"{'' if when_full == 'refuse' else ', or one of no higher priority'}; submit less often, "
                "use when_full='wait', or open the runtime with a larger max_pending"
            )
        return self._pull([entry])
