"""What TensorRT says: into Python's logging, and the last lines kept for error messages."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pargo_export.trt.api import TensorRTModule

if TYPE_CHECKING:
    from tensorrt import ILogger

__all__ = ["Log"]

_NUM_KEPT = 200
_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)  # by severity
_NUM_SHOWN = 4
_WARNING, _VERBOSE = 2, 4
# Warnings that say nothing: the parser repeats this for every node of a function that is called twice.
_NOISE = ("the output tensors of this new instance will not be queryable",)


class Log:
    """Messages of one TensorRT module, from whatever thread.

    Attributes:
        logger: Where they go; errors as warnings, as our own exception tells them again.
    """

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(f"pargo_export.{name}")
        self._messages: deque[tuple[int, str]] = deque(maxlen=_NUM_KEPT)
        self._lock = threading.Lock()

    def write(self, severity: int, message: str) -> None:
        """Take a message; severity 0 is an internal error, 4 is verbose."""
        text = message.strip()
        if text.rstrip(".").endswith(_NOISE):
            severity = _VERBOSE
        if severity <= _WARNING:  # TensorRT hands over thousands of others, which would push these out
            with self._lock:
                self._messages.append((severity, text))
        extra = {"pargo_event": "tensorrt_message", "pargo_severity": severity}
        self.logger.log(min(_LEVELS[severity], logging.WARNING), "%s", text, extra=extra)

    def clear(self) -> None:
        """Forget what was said, before something new begins."""
        with self._lock:
            self._messages.clear()

    def lines(self, at_most: int = _WARNING) -> list[str]:
        """Return the last messages of a severity up to `at_most` (1: errors, 2: warnings too), oldest first."""
        with self._lock:
            return [message for severity, message in self._messages if severity <= at_most]

    def reason(self, otherwise: str) -> str:
        """Return the last errors in one line, else the last warnings, else `otherwise`."""
        for at_most in (1, _WARNING):
            lines = list(dict.fromkeys(self.lines(at_most)))
            if lines:
                return "; ".join(lines[-_NUM_SHOWN:])
        return otherwise

    @contextlib.contextmanager
    def watch(self) -> Iterator[Log]:
        """Begin with an empty log, for `reason` to speak of what happens inside; one at a time in a process."""
        self.clear()
        yield self

    def as_logger(self, module: TensorRTModule) -> ILogger:
        """Return an object of the module's `ILogger` that writes here; keep it as long as TensorRT is in use."""
        log, interface = self, module.ILogger

        class Logger(interface):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                interface.__init__(self)  # the bindings want it called by name

            def log(self, severity: ILogger.Severity, message: str) -> None:
                log.write(int(severity), message)

        return Logger()
