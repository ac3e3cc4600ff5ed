"""Fork while a runtime is open and busy; a process of its own, because the tests' own has many threads.

    python fork_process.py BUNDLE PICTURE BACKEND

Prints what each child found, as JSON lines, and at the end that the parent still computes the same.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable

import numpy as np

from pargo_export.errors import BackendError
from pargo_export.preprocessing.silence import pillow_silenced
from pargo_export.runtime import Runtime

LIMIT_S = 60


def main() -> None:
    """Fork a child for each question."""
    bundle, picture, backend = sys.argv[1:]
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns whoever forks with threads
    with Runtime.open(bundle, backend=backend, threads=2, preprocess_threads=2) as runtime:
        expected = runtime.encode([picture, picture])
        assert runtime.submit(picture).result(LIMIT_S).shape[0] == 1

        def use_inherited() -> dict[str, str]:
            feed = {"pixel_values": np.zeros((1, 3, 84, 84), np.float32)}
            uses: dict[str, Callable[[], object]] = {
                "encode": lambda: runtime.encode(picture),
                "encode_into": lambda: runtime.encode_into(picture, np.empty_like(expected[:1])),
                "submit": lambda: runtime.submit(picture),
                "preprocess": lambda: runtime.preprocess([picture, picture]),
                "prepare": lambda: runtime.prepare([picture, picture]),
                "run": lambda: runtime.run(feed),
                "run_stages": lambda: runtime.run_stages(feed),
            }
            return {name: _message(use) for name, use in uses.items()} | {"close": str(runtime.close())}

        def open_anew() -> dict[str, object]:
            with Runtime.open(bundle, backend=backend, threads=2, preprocess_threads=2) as own:
                tokens = own.encode([picture, picture])
                submitted = own.submit([picture, picture]).result(LIMIT_S)
            return {"same": bool(np.array_equal(tokens, expected) and np.array_equal(submitted, expected))}

        # At the moment of the fork another thread holds every lock that the child could wait for.
        held, go = threading.Event(), threading.Event()

        def hold_locks() -> None:
            with (
                runtime._runner._state,
                runtime._submissions._queue._changed,
                pillow_silenced,
                pillow_silenced._lock,
            ):
                held.set()
                go.wait(LIMIT_S)

        holder = threading.Thread(target=hold_locks)
        holder.start()
        held.wait(LIMIT_S)
        children = [_fork(use_inherited), _fork(open_anew)]
        go.set()
        holder.join(LIMIT_S)
        for child in children:
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
        _write({"parent": bool(np.array_equal(runtime.encode([picture, picture]), expected))})


def _message(use: Callable[[], object]) -> str:
    try:
        return f"returned {use()!r}"
    except BackendError as error:
        return str(error)


def _write(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _fork(question: Callable[[], object]) -> int:
    """Answer a question in a child, which then ends as those of multiprocessing do.

    By `sys.exit` it would not: after `import onnxruntime` in the parent, what ONNX Runtime 1.32 cleans up at the exit
    of a process waits in the child for a thread of the parent, whether there was a session or not.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    signal.alarm(LIMIT_S)  # a child that hangs is killed
    try:
        _write(question())
    except Exception:  # noqa: BLE001 - the child must not go on with what the parent does
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
