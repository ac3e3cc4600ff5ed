"""What a runtime tells whoever wants to watch it: one event a call, handed to listeners as it happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["EventKind", "Events", "Listener", "RunEvent"]

EventKind: TypeAlias = Literal["run", "failed", "expired", "refused", "replaced"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEvent:
    """What became of one call of `encode` or `encode_into`, or of one or more submissions that ran together.

    `queue_s`, `preprocess_s` and `run_s` follow each other: their sum is what the caller that waited longest waited.

    Attributes:
        kind: `"run"`: computed. `"failed"`: an error of the input or of the backend. Of submissions only:
            `"expired"`: the deadline passed before it was computed; `"refused"`: there was no room in the queue;
            `"replaced"`: it gave way to a later one. What was cancelled has no event.
        num_images: Images of the call, of all submissions together; 0 where they were not looked at.
        queue_s: Seconds in the queue, the gathering window included; 0 for a call that does not queue.
        preprocess_s: Seconds to read, decode and fit the pictures.
        run_s: Seconds from handing pixels to the backend to having the tokens, all runs of the call together.
        error: Of every kind but `"run"`: class and message.
        num_requests: Calls or submissions that this event is about.
    """

    kind: EventKind
    num_images: int
    queue_s: float
    preprocess_s: float
    run_s: float
    error: str = ""
    num_requests: int = 1


Listener: TypeAlias = Callable[[RunEvent], object]


class Events:
    """The listeners of one runtime; may be used from several threads.

    Attributes:
        wanted: Whether anybody listens. Asked before an event is made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()  # replaced, never changed: read without the lock
        self.wanted = False

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event from now on, until the returned function is called (again does nothing).

        The listener runs in the thread that computes, before the result is handed over: it must be quick, and
        thread-safe. What it raises is logged and changes nothing.
        """
        entry: Listener = lambda event: listener(event)  # noqa: E731, PLW0108 - one listener may subscribe twice

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not entry)
                self.wanted = bool(self._listeners)

        with self._lock:
            self._listeners = (*self._listeners, entry)
            self.wanted = True
        return unsubscribe

    def publish(self, event: RunEvent) -> None:
        """Hand an event to every listener, in the order of subscription."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: PERF203 - the caller of `encode` must not pay for it
                extra = {"pargo_event": "listener_failed"}
                _LOGGER.exception("a listener of runtime events failed; its error is ignored", extra=extra)
