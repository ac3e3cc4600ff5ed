"""What `Runtime.encode` costs beyond the bare session call of ONNX Runtime, for float input at batch 1.

Method: the bare call and `encode` in turns, on the very same session with one thread, the same pixels, in one process;
reported is the median of the differences of neighbours with its 95 % bootstrap interval. The session alone varies by
more than what is looked for, so the calls around it are timed as well, with a backend that returns at once. The gate
comes first: both give the same bits. The models have one layer each, because the cost does not depend on what the
graph does; it does on the size of the input, in which NaN is looked for unless `check_finite=False`.

    python benchmarks/runtime_overhead.py --work work --json result.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import describe_environment, write_json
from numpy.typing import NDArray
from small_bundle import small_bundle

from pargo_export import Runtime
from pargo_export.bench.statistics import median_interval

SIZES = (84, 336)
GOAL_US = 50.0


def main() -> None:
    """Measure at each size, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the bundles; made ones are used again"
    )
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = [
        measure(small_bundle(arguments.work, size, num_layers=1), arguments.pairs, check_finite=check)
        for size in SIZES
        for check in (True, False)
    ]
    for row in rows:
        print(row)
    if arguments.json:
        environment = describe_environment(("numpy", "onnxruntime"))
        write_json(arguments.json, {"environment": environment, "goal_us": GOAL_US, "rows": rows})


def measure(bundle: Path, pairs: int, *, check_finite: bool) -> dict[str, Any]:
    """Return the times of one input size, microseconds."""
    with Runtime.open(bundle, backend="onnxruntime", threads=1, check_finite=check_finite) as runtime:
        name, shape = runtime.signature.inputs[0].name, runtime.signature.inputs[0].shape
        outputs = [spec.name for spec in runtime.signature.outputs]
        pixels = np.random.default_rng(0).standard_normal((1, *map(int, shape[1:])), np.float32)
        runner: Any = runtime._runner  # noqa: SLF001 - the very session, so that nothing else differs
        session = runner._session  # noqa: SLF001

        def bare() -> NDArray[np.float32]:
            return session.run(outputs, {name: pixels})[0]

        def encode() -> NDArray[np.float32]:
            return runtime.encode(pixels)

        if not np.array_equal(bare(), encode()):
            raise SystemExit("Runtime.encode and the session differ; nothing was timed")
        bare_us, encode_us = in_turns((bare, encode), pairs)
        differences = encode_us - bare_us
        interval = median_interval(differences.tolist(), seed=0)
        if interval is None:
            raise SystemExit("--pairs: too few for an interval")
        computed = dict(zip(outputs, [bare()], strict=True))
        runner._execute = lambda _: computed  # noqa: SLF001 - a backend that returns at once
        (around_us,) = in_turns((encode,), pairs)
    return {
        "input": f"float32[1, {', '.join(map(str, shape[1:]))}]",
        "check_finite": check_finite,
        "bare_median_us": round(float(np.median(bare_us)), 1),
        "encode_median_us": round(float(np.median(encode_us)), 1),
        "difference_median_us": round(float(np.median(differences)), 1),
        "difference_interval_us": [round(interval.low, 1), round(interval.high, 1)],
        "around_the_session_median_us": round(float(np.median(around_us)), 1),
        "around_the_session_p99_us": round(float(np.percentile(around_us, 99)), 1),
        "pairs": pairs,
    }


def in_turns(calls: tuple[Callable[[], object], ...], rounds: int) -> list[NDArray[np.float64]]:
    """Return the times of each call, microseconds; who is first changes every round."""
    times = [np.empty(rounds) for _ in calls]
    order = list(enumerate(calls))
    for index in range(-min(100, rounds), rounds):
        for which, call in order if index % 2 else reversed(order):
            begin = time.perf_counter_ns()
            call()
            if index >= 0:
                times[which][index] = (time.perf_counter_ns() - begin) / 1e3
    return times


if __name__ == "__main__":
    main()
