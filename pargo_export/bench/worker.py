"""A subject in a process of its own; started by `SubjectProcess`, not by hand.

A process for each keeps thread pools and memory apart: one that is not asked blocks on its standard input and takes no
part in what is timed. Commands come as JSON lines on standard input, answers go to standard output as JSON lines;
whatever a library prints goes to standard error. When the input ends, the process ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pargo_export.errors import PargoExportError

__all__ = ["main"]

_GRACE_S = 1.0  # for what runs when the input ends
_MAX_MESSAGE = 2000


def main() -> None:
    """Load what the first line says, then answer until the input ends."""
    # Ctrl-C reaches every process of the terminal; when to stop is for the one that started this one to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    commands: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    methods: dict[str, Callable[..., dict[str, Any]]] | None = None
    while (line := commands.get()) is not None:
        command = json.loads(line)
        try:
            if methods is None:
                from pargo_export.bench.session import Session

                session = Session(**command)
                methods = session.methods
                answer = session.describe()
            else:
                answer = methods[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001 - the other side reports it
            answer = {"error": _describe(error)}
        answers.write(json.dumps(answer) + "\n")
    if methods is not None:
        methods["close"]()


def _read(commands: queue.SimpleQueue[str | None]) -> None:
    """Hand over the lines of the input; at its end leave, whatever runs: nobody would read the answer."""
    for line in sys.stdin:
        commands.put(line)
    commands.put(None)
    time.sleep(_GRACE_S)
    os._exit(1)


def _describe(error: Exception) -> str:
    text = str(error).strip() or "no message"
    if not isinstance(error, PargoExportError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ..."


if __name__ == "__main__":
    main()
