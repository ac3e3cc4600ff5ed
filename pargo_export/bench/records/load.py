"""Records of latency under load, and over time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pargo_export.bench.records.statistics import Interval, Summary
from pargo_export.config import Record

__all__ = ["LoadPoint", "LoadSweep", "SustainedRun", "Window"]

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LoadPoint(Record):
    """Latency at one offered load; arrivals do not wait for answers.

    Attributes:
        offered_per_s: Requests that arrived in a second, as planned.
        achieved_per_s: Requests that were answered in a second.
        duration_s: From the first arrival to the last answer.
        num_requests: Arrivals.
        num_missed: Answered after the deadline, expired in the queue, or refused; `None` without a deadline.
        num_refused: Refused because the queue was full, or expired in it.
        samples_ms: From the planned arrival of a request to its answer, so that waiting is counted.
        summary: Of the samples; `None` if nothing was answered.
        is_saturated: Whether answers came more slowly than requests: the latency grows with the duration then, and says
            nothing by itself.
        mean_batch: Images in one run on average, where the runtime gathered requests; `None` if unknown.
        late_ms: How late the generator handed over the requests, 99th percentile; it is part of the samples. Much of it
            means that the machine could not keep the plan. `None` if unknown.
    """

    offered_per_s: float
    achieved_per_s: float
    duration_s: float
    num_requests: int
    num_missed: int | None = None
    num_refused: int = 0
    samples_ms: tuple[_Milliseconds, ...]
    summary: Summary | None
    is_saturated: bool
    mean_batch: float | None = None
    late_ms: float | None = None


class LoadSweep(Record):
    """Latency of a subject against the load that is offered to it.

    Attributes:
        subject: Name of the subject.
        arrivals: `"poisson"`: independent users; `"fixed"`: a camera.
        deadline_ms: Time that an answer may take; `None` without one.
        max_batch: Requests that the runtime gathers into one run at most.
        max_wait_ms: How long it waits for them.
        points: Ascending by offered load.
        capacity_per_s: Largest offered load that was not saturated; `None` if every one was.
    """

    subject: str
    arrivals: Literal["poisson", "fixed"]
    deadline_ms: float | None = None
    max_batch: int
    max_wait_ms: float
    points: tuple[LoadPoint, ...]
    capacity_per_s: float | None


class Window(Record):
    """A stretch of a sustained run.

    Attributes:
        start_s: Since the begin.
        median_ms: Of the runs in it.
        p99_ms: Of the runs in it.
        num_runs: Runs in it.
        clock_mhz: Mean clock of the device; `None` if unknown.
        temperature_c: Highest temperature; `None` if unknown.
        power_w: Mean power; `None` if unknown.
    """

    start_s: float
    median_ms: float
    p99_ms: float
    num_runs: int
    clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class SustainedRun(Record):
    """One subject, run without a pause: does it stay as fast as it began?

    Attributes:
        subject: Name of the subject.
        batch: Images in one run.
        duration_s: Seconds.
        windows: In the order of time.
        slowdown: Time of a run in the last fifth of the windows by that in the first: geometric means of their medians.
        interval: Confidence interval of the slowdown.
        throttled: Reasons that the device gave for lower clocks meanwhile; empty if it gave none, `None` if it cannot say.
    """

    subject: str
    batch: int
    duration_s: float
    windows: tuple[Window, ...]
    slowdown: float
    interval: Interval
    throttled: tuple[str, ...] | None = None
