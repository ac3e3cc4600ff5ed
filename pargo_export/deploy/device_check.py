"""Run engines on this machine: do they compute what the float32 variant computes, and how long do they take."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

from pargo_export.agreement import describe_agreement, measure_agreement
from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle, Engine, EngineTiming, Evidence, Flavor
from pargo_export.errors import EngineError, ParityError
from pargo_export.runtime import Runtime
from pargo_export.runtime.selection import select

__all__ = [
    "BACKENDS",
    "check_agreement",
    "describe_failure",
    "find_run_obstacle",
    "time_engines",
    "time_in_turns",
]

BACKENDS: dict[Flavor, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt-rtx"}

_NUM_WARMUP = 10
_NUM_RUNS = 50


def find_run_obstacle(bundle: Bundle, engine: Engine) -> str | None:
    """Return why an engine cannot be run on this machine; `None` if it can."""
    choice = select(_only(bundle, engine), backend=BACKENDS[engine.flavor], variant=engine.variant)
    return None if choice.candidates else "; ".join(choice.refusals)


def check_agreement(bundle: Bundle, engine: Engine) -> Evidence:
    """Run an engine and hold it against the float32 variant, with the limits of its own variant.

    Raises:
        BackendError: It cannot be run.
        EngineError: Its output holds NaN or infinity.
    """
    try:
        return measure_agreement(_only(bundle, engine), BACKENDS[engine.flavor], engine.variant)
    except ParityError as error:
        raise EngineError(f"engine {engine.name} computes nonsense: {error}") from error


def time_engines(
    bundle: Bundle, engines: Sequence[Engine], *, num_runs: int = _NUM_RUNS
) -> tuple[EngineTiming, ...]:
    """Time engines in turns, so that what else the machine does meets all of them.

    A run is a photograph repeated, from normalised pixels in the memory of the host to visual tokens there. The batch is
    the one that the kernels of the first profile were chosen for; engines that are compared have the same profiles.

    Args:
        bundle: The bundle.
        engines: The engines.
        num_runs: Timed runs of each, after some that are not.

    Raises:
        BackendError: One cannot be run.
        EngineError: Their batch sizes differ.
    """
    batches = {engine.profiles[0].opt_batch for engine in engines}
    if len(batches) != 1:
        found = ", ".join(f"{engine.name}: {engine.profiles[0]}" for engine in engines)
        raise EngineError(
            f"the engines have kernels for different batch sizes ({found}); build both with the same ones (--force)"
        )
    (batch,) = batches
    with contextlib.ExitStack() as stack:
        calls = []
        for engine in engines:
            runtime = stack.enter_context(
                Runtime.open(_only(bundle, engine), backend=BACKENDS[engine.flavor], variant=engine.variant)
            )
            feed = {runtime.signature.inputs[0].name: runtime.prepare([PHOTOGRAPH] * batch)}
            calls.append(lambda runtime=runtime, feed=feed: runtime.run(feed))
        medians = time_in_turns(calls, num_runs=num_runs)
    return tuple(EngineTiming(batch=batch, median_ms=median, num_runs=num_runs) for median in medians)


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    num_runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the median time of each call, milliseconds: one run of each in turn, `num_runs` times.

    Args:
        calls: What to time; each returns when its result is there.
        num_runs: Timed runs of each.
        clock: Seconds.
    """
    for _ in range(_NUM_WARMUP):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(num_runs):
        for call, own in zip(calls, times, strict=True):
            begin = clock()
            call()
            own.append(1000 * (clock() - begin))
    return [statistics.median(own) for own in times]


def describe_failure(engine: Engine, evidence: Evidence) -> str:
    """Say how far an engine is past its limits."""
    limits = ", ".join(
        f"{name} {value}" for name, value in evidence.limits.model_dump(exclude_none=True).items()
    )
    return f"engine {engine.name} misses its limits on this device ({limits}): {describe_agreement(evidence)}"


def _only(bundle: Bundle, engine: Engine) -> Bundle:
    """Return the bundle as if it had this engine alone, not judged yet: so no other one is taken for it."""
    unjudged = engine.model_copy(update={"evidence": None})
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": {engine.name: unjudged}}))
