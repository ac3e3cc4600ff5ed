"""Two results of different runs: did anything become slower?

A slowdown beyond what is allowed is *proven* if three things hold, else *suspected*:

- The whole confidence interval of the ratio lies above the limit. Chance alone puts it there in one of forty
  comparisons if the slowdown is exactly the allowed one, and much more rarely if there is none.
- The fastest runs became slower by as much. What else a machine does can only add time, and spares some runs; a slower
  program spares none. (Chen and Revels, "Robust benchmarking in noisy environments", arXiv 1608.04295, go as far
  as taking the minimum for the result.) A change that slows down some of the runs only stays suspected.
- The machine was ours. Where others use a quarter of it, caches and memory are shared too, and no run is spared.

What no statistics of two runs can see is that a machine may be some percent slower today than it was yesterday, alone
or not: the allowance has to be larger than that. Where it matters, measure both versions in turns in one run
(`comparison`): there, drifts cancel.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from pargo_export.bench.comparability import check_comparable, describe_changes
from pargo_export.bench.records import BenchResult, Boundary, Clock, Interval, Measurement
from pargo_export.bench.round_statistics import interval_of_means, log_round_medians
from pargo_export.config import Record
from pargo_export.errors import ConfigError

__all__ = ["Change", "ChangeStatus", "Regressions", "find_regressions"]

ChangeStatus: TypeAlias = Literal["regression", "suspected", "faster", "no regression"]

_FAST_PERCENTILE = 5
_LARGEST_OTHER_LOAD = 0.25
# Their times depend on the pictures.
_BY_PICTURES: frozenset[Boundary] = frozenset(("preprocess", "end_to_end"))

_Key: TypeAlias = tuple[str, int, int, Boundary, Clock]


class Change(Record):
    """One measurement, then and now.

    Attributes:
        subject: Name of the subject.
        batch: Images in one run.
        concurrency: Callers at the same time.
        boundary: From where to where.
        clock: Who took the time.
        old_ms: Geometric mean of the medians of its rounds, then.
        new_ms: The same now.
        ratio: `new_ms` by `old_ms`; above 1 it became slower.
        interval: Confidence interval of the ratio; `None` with fewer than two rounds on either side.
        num_rounds: Rounds then and now.
        status: `"regression"`: proven slower than allowed. `"suspected"`: slower than allowed, not proven.
            `"faster"`: faster by the interval, on a machine that was ours. `"no regression"`: none of these.
        doubt: Of a suspicion: why it is no proof. Else empty.
    """

    subject: str
    batch: int
    concurrency: int
    boundary: Boundary
    clock: Clock
    old_ms: float
    new_ms: float
    ratio: float
    interval: Interval | None
    num_rounds: tuple[int, int]
    status: ChangeStatus
    doubt: str = ""


class Regressions(Record):
    """What became slower from one result to another.

    Attributes:
        fail_above: Slowdown that is allowed: 0.05 are 5 %.
        changes: Every measurement that both results have.
        missing: What the old result has and the new one has not.
        warnings: What else differs between the runs, and what makes them doubtful.
    """

    fail_above: float
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def proven(self) -> tuple[Change, ...]:
        """What is proven to be slower than allowed; if there is any, the comparison failed."""
        return tuple(change for change in self.changes if change.status == "regression")

    @property
    def suspected(self) -> tuple[Change, ...]:
        """What was slower than allowed, without proof."""
        return tuple(change for change in self.changes if change.status == "suspected")


def find_regressions(
    old: BenchResult, new: BenchResult, *, fail_above: float, allow_other_device: bool = False
) -> Regressions:
    """Compare every measurement that two results share.

    They are matched by subject, batch, concurrency, boundary and clock. If the pictures were others, times that begin
    with decoding are left out.

    Args:
        old: What was.
        new: What is.
        fail_above: Slowdown that is allowed, as a share of the old time: 0.05 are 5 %.
        allow_other_device: Compare results of different devices too.

    Raises:
        ConfigError: `fail_above` is negative, the results are of different models or devices, or they share nothing.
        MissingDependencyError: SciPy is not installed.
    """
    if not (math.isfinite(fail_above) and fail_above >= 0):
        raise ConfigError(f"fail_above: found {fail_above}, expected a share from 0 on: 0.05 are 5 %")
    check_comparable(old, new, allow_other_device=allow_other_device)
    warnings = list(describe_changes(old, new))
    before, after = (_by_key(result) for result in (old, new))
    shared = [key for key in before if key in after]
    if old.inputs.sha256 != new.inputs.sha256:
        left_out = [key for key in shared if key[3] in _BY_PICTURES]
        shared = [key for key in shared if key not in left_out]
        warnings.append(f"other pictures: {len(left_out)} times that begin with decoding are not compared")
    busy = _describe_load(old, new)
    changes = [_compare(before[key], after[key], 1 + fail_above, busy) for key in shared]
    found = [change for change in changes if change is not None]
    if not found:
        raise ConfigError(
            f"the results share no measurement that can be compared: the old one has {_list(before)}; the new one has "
            f"{_list(after)}; measure the same variants, backends and batch sizes"
        )
    for name, measurements in (("old", before), ("new", after)):
        warnings += [
            f"the {name} times of {_name(key)} did not settle: {measurements[key].steadiness.reason}"
            for key in shared
            if not measurements[key].steadiness.is_steady
        ]
    return Regressions(
        fail_above=fail_above,
        changes=tuple(found),
        missing=tuple(_name(key) for key in before if key not in after),
        warnings=tuple(warnings),
    )


def _describe_load(old: BenchResult, new: BenchResult) -> str:
    """Return by how much others used the machine in one of the runs; empty if it was little or is unknown."""
    loads = {
        name: result.other_load
        for name, result in (("old", old), ("new", new))
        if result.other_load is not None and result.other_load > _LARGEST_OTHER_LOAD
    }
    found = " and ".join(f"{load:.0%} of the CPU time of the {name} run" for name, load in loads.items())
    return f"others used {found}" if found else ""


def _compare(old: Measurement, new: Measurement, limit: float, busy: str) -> Change | None:
    """Compare two measurements of the same; `None` if one of them took no time at all.

    Args:
        old: What was.
        new: What is.
        limit: Largest ratio that is allowed.
        busy: Why nothing can be proven at all; empty if it can.
    """
    before, after = (
        np.array([value for _, value in sorted(log_round_medians(measurement).items())])
        for measurement in (old, new)
    )
    if not len(before) or not len(after):
        return None
    ratio, interval = math.exp(float(after.mean() - before.mean())), None
    if min(len(before), len(after)) > 1:
        ratio, interval = interval_of_means(before, after)
    status, doubt = _judge(ratio, interval, _compare_fastest(old, new), limit, busy)
    return Change(
        subject=new.subject,
        batch=new.batch,
        concurrency=new.concurrency,
        boundary=new.boundary,
        clock=new.clock,
        old_ms=math.exp(float(before.mean())),
        new_ms=math.exp(float(after.mean())),
        ratio=ratio,
        interval=interval,
        num_rounds=(len(before), len(after)),
        status=status,
        doubt=doubt,
    )


def _compare_fastest(old: Measurement, new: Measurement) -> float:
    """Return the ratio of the times that only one of twenty runs went below."""
    before, after = (
        float(np.percentile(measurement.samples_ms, _FAST_PERCENTILE)) for measurement in (old, new)
    )
    return after / before if before > 0 else math.inf


def _judge(
    ratio: float, interval: Interval | None, ratio_of_fastest: float, limit: float, busy: str
) -> tuple[ChangeStatus, str]:
    """Return what a ratio shows, and why a suspicion is no proof."""
    if ratio <= limit:
        is_faster = interval is not None and interval.high < 1 and not busy
        return ("faster" if is_faster else "no regression"), ""
    if interval is None:
        return "suspected", "one of the runs has a single round"
    if interval.low <= limit:
        return "suspected", "the interval reaches down to what is allowed; more rounds make it narrower"
    if ratio_of_fastest <= limit:
        return "suspected", f"the fastest runs took {ratio_of_fastest:.3g} times as long, which is allowed"
    return ("suspected", busy) if busy else ("regression", "")


def _by_key(result: BenchResult) -> dict[_Key, Measurement]:
    return {
        (item.subject, item.batch, item.concurrency, item.boundary, item.clock): item
        for item in result.measurements
    }


def _name(key: _Key) -> str:
    subject, batch, concurrency, boundary, clock = key
    callers = "" if concurrency == 1 else f", {concurrency} callers"
    return f"{subject}, batch {batch}{callers}, {boundary} ({clock})"


def _list(measurements: dict[_Key, Measurement]) -> str:
    names = [_name(key) for key in measurements]
    return (
        "; ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"
    )
