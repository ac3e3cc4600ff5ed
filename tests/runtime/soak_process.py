"""Call a runtime many times and watch what it holds; a process of its own, so that nothing else grows in it.

    python soak_process.py BUNDLE NUM_CALLS

Prints one JSON object: for each tenth of the calls, resident memory (KiB), open files and threads.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path

import numpy as np

from pargo_export.errors import ImageError
from pargo_export.runtime import Runtime

NUM_LOOKS = 10


def main() -> None:
    """Open, call in every way, look, close."""
    bundle, num_calls = sys.argv[1], int(sys.argv[2])
    values = np.random.default_rng(0)
    looks = []
    with Runtime.open(bundle, threads=1, gather_ms=0.05, preprocess_threads=2) as runtime:
        shape = runtime.signature.inputs[0].shape[1:]
        pixels = values.standard_normal((2, *map(int, shape)), np.float32)
        picture = values.integers(0, 256, (16, 16, 3), np.uint8)
        out = np.empty_like(runtime.encode(pixels))
        events: list[object] = []
        for call in range(num_calls + 1):
            if call % max(1, num_calls // NUM_LOOKS) == 0:
                gc.collect()
                looks.append(_look())
            _call(runtime, call, pixels, picture, out, events)
    gc.collect()
    sys.stdout.write(json.dumps({"looks": looks, "closed": _look()}))


def _call(
    runtime: Runtime,
    call: int,
    pixels: np.ndarray,
    picture: np.ndarray,
    out: np.ndarray,
    events: list[object],
) -> None:
    """One of eight kinds of calls, in turn."""
    kind = call % 8
    if kind < 3:
        runtime.encode(pixels[:1])
    elif kind == 3:
        runtime.encode_into(pixels, out)
    elif kind == 4:
        runtime.encode([picture, picture.copy()])
    elif kind == 5:
        unsubscribe = runtime.subscribe(events.append)
        futures = [runtime.submit(pixels[:1]) for _ in range(3)]
        futures[-1].cancel()
        assert all(future.cancelled() or future.result(60) is not None for future in futures)
        unsubscribe()
        events.clear()
    elif kind == 6:
        runtime.submit(pixels[:1], deadline_s=1e-9).exception(60)
    else:
        try:
            runtime.encode(b"no picture")
        except ImageError:
            return
        raise AssertionError


def _look() -> dict[str, int]:
    status = Path("/proc/self/status").read_text("ascii")
    resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    tasks = sum(1 for _ in Path("/proc/self/task").iterdir())
    return {
        "rss_kib": int(resident),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": tasks,
        "python_threads": threading.active_count(),
    }


if __name__ == "__main__":
    main()
