"""Latency against offered load: from a load that is easy to the one that is too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pargo_export.bench.arrivals import Arrivals
from pargo_export.bench.records import LoadPoint, LoadSweep
from pargo_export.errors import ConfigError

__all__ = ["FIRST_SHARE", "MAX_POINTS", "load_warnings", "sweep"]

FIRST_SHARE = 0.4  # of the closed-loop throughput: easy, also where arrivals come in bunches
MAX_POINTS = 12
_STEP = 1.5
_SMALLEST_SHARE = 1 / 16  # of the first load; if that is too much, something else is wrong
_CLOSE = 1.1  # the capacity is bracketed between loads that differ by less than a tenth
_FEWEST_REQUESTS = 30  # below, bunches of arrivals alone look like too much, and too much like bunches
_LATE_MS = 1.0
_LATE_SHARE = 0.1  # of the median latency


def sweep(
    measure_point: Callable[[float], LoadPoint],
    *,
    subject: str,
    start: float,
    rates: Sequence[float] = (),
    arrivals: Arrivals = "poisson",
    deadline_ms: float | None = None,
    max_batch: int = 1,
    max_wait_ms: float = 0.0,
) -> LoadSweep:
    """Measure the latency at several loads, up to saturation.

    Without `rates`, the load begins at four tenths of `start` and grows by half each time until it is too much; then
    the gap between the largest load that was borne and the smallest that was not is halved until they differ by less
    than a tenth. If even the first is too much, it is halved instead, down to a sixteenth. At most twelve points.

    Args:
        measure_point: Puts a load, requests a second, on the subject: `run_load`, usually in its worker.
        subject: Name of the subject.
        start: Throughput in a closed loop, images a second: about what the subject can take.
        rates: Offered loads instead, requests a second.
        arrivals: For the record, as is what follows.
        deadline_ms: Time that an answer may take; `None` without a deadline.
        max_batch: Requests that the runtime gathers into one run at most.
        max_wait_ms: How long it waits for them.

    Raises:
        ConfigError: `start` or one of `rates` is not positive.
    """
    for name, values in (("start", (start,)), ("rates", rates)):
        if any(not (math.isfinite(value) and value > 0) for value in values):
            raise ConfigError(
                f"{name}: found {', '.join(f'{value:g}' for value in values)}, expected positive numbers"
            )
    if rates:
        points = [measure_point(rate) for rate in sorted(set(rates))]
    else:
        points = _search(measure_point, FIRST_SHARE * start)
    points.sort(key=lambda point: point.offered_per_s)
    return LoadSweep(
        subject=subject,
        arrivals=arrivals,
        deadline_ms=deadline_ms,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        points=tuple(points),
        capacity_per_s=max((point.offered_per_s for point in points if not point.is_saturated), default=None),
    )


def _search(measure_point: Callable[[float], LoadPoint], rate: float) -> list[LoadPoint]:
    """Bracket the capacity, beginning at `rate`."""
    points: list[LoadPoint] = []
    smallest, borne, too_much = rate * _SMALLEST_SHARE, 0.0, math.inf
    while len(points) < MAX_POINTS and too_much > _CLOSE * borne and rate >= smallest:
        points.append(measure_point(rate))
        if points[-1].is_saturated:
            too_much = rate
        else:
            borne = rate
        if not borne:
            rate = too_much / 2
        elif math.isinf(too_much):
            rate = borne * _STEP
        else:
            rate = math.sqrt(borne * too_much)
    return points


def load_warnings(sweep: LoadSweep) -> tuple[str, ...]:
    """Return what makes a sweep doubtful: few requests, a late generator, or a capacity outside of the loads."""
    warnings = []
    if sweep.points and (fewest := min(point.num_requests for point in sweep.points)) < _FEWEST_REQUESTS:
        warnings.append(
            f"{sweep.subject}: a load of {fewest} requests is short, at least {_FEWEST_REQUESTS} are needed to tell waiting "
            "from saturation; measure for longer"
        )
    for point in sweep.points:
        usual_ms = point.summary.median_ms if point.summary is not None else 0.0
        if point.late_ms is not None and point.late_ms > max(_LATE_MS, _LATE_SHARE * usual_ms):
            warnings.append(
                f"{sweep.subject}: at {point.offered_per_s:.3g} requests/s the load generator was up to "
                f"{point.late_ms:.3g} ms late (99th percentile), which is part of the latencies: the cores were busy"
            )
    if sweep.capacity_per_s is None:
        warnings.append(
            f"{sweep.subject}: every load that was offered was too much; its capacity is below all of them"
        )
    elif not any(point.is_saturated for point in sweep.points):
        warnings.append(
            f"{sweep.subject}: no load that was offered was too much; its capacity is above all of them"
        )
    return tuple(warnings)
