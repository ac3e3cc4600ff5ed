"""Put a load on a runtime as the world does: requests arrive when they arrive, whether or not answers came.

A generator that waits for an answer before it sends the next request sends least while the system is slowest, and so
leaves out the very requests that would have waited: coordinated omission (Gil Tene, "How NOT to Measure Latency";
wrk2 and HdrHistogram correct for it in the same way). Here the plan is made before, the generator never waits, and a
latency counts from the *planned* arrival: what the generator itself was late is part of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

import numpy as np

from pargo_export.bench.arrivals import Arrivals, plan_arrivals
from pargo_export.bench.records import LoadPoint
from pargo_export.bench.saturation import find_saturation
from pargo_export.bench.statistics import summarize
from pargo_export.errors import ConfigError, DeadlineError, OverloadError
from pargo_export.runtime.events import RunEvent

__all__ = ["LoadClock", "Submits", "WallClock", "run_load"]

_LEAD_NS = 10_000_000  # from the plan to the first arrival
_BLOCKS = 20  # of consecutive answers, which the bootstrap draws as one


class Submits(Protocol):
    """What a load is put on: `Runtime`, or something with the same method."""

    def submit(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        when_full: Literal["wait", "refuse", "replace"] = "wait",
    ) -> Future[Any]:
        """Queue a request; see `Runtime.submit`."""


class LoadClock(Protocol):
    """Time as the generator sees it; the tests have one that does not pass by itself."""

    def now_ns(self) -> int:
        """Return the time."""

    def sleep_until_ns(self, moment: int) -> None:
        """Return at that time, or at once if it has passed."""

    def drain(self) -> None:
        """Is called when nothing else will arrive, before the generator waits for the last answers."""


class WallClock:
    """Real time: `time.perf_counter_ns`, the clock of all timings."""

    def now_ns(self) -> int:
        """Return the time."""
        return time.perf_counter_ns()

    def sleep_until_ns(self, moment: int) -> None:
        """Sleep, never wait busily: the cores belong to the runtime."""
        while (left := moment - time.perf_counter_ns()) > 0:
            time.sleep(left / 1e9)

    def drain(self) -> None:
        """Time passes by itself."""


class _Answers:
    """What became of each request; answers come from threads of the runtime."""

    def __init__(self, count: int, clock: LoadClock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._pending = 0
        self.latencies_ms = np.full(count, np.nan)  # NaN: not answered
        self.error: BaseException | None = None

    def expect(self, future: Future[Any], index: int, planned_ns: int) -> None:
        """Take note of the answer when it comes. The future, and with it the result, is not kept."""
        with self._changed:
            self._pending += 1
        future.add_done_callback(lambda done: self._finish(done, index, planned_ns))

    def _finish(self, future: Future[Any], index: int, planned_ns: int) -> None:
        latency_ms = (self._clock.now_ns() - planned_ns) / 1e6
        error = future.exception() if not future.cancelled() else OverloadError("the request was cancelled")
        with self._changed:
            self._pending -= 1
            if error is None:
                self.latencies_ms[index] = latency_ms
            elif not isinstance(error, (OverloadError, DeadlineError)):
                self.error = self.error or error
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait for every answer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)


class _BatchSizes:
    """Mean number of images in a run, as the runtime tells it."""

    def __init__(self) -> None:
        self._images = self._runs = 0

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "run":
            self._images += event.num_images
            self._runs += 1

    def mean(self) -> float | None:
        return self._images / self._runs if self._runs else None


def run_load(
    runtime: Submits,
    pictures: Sequence[Any],
    *,
    rate: float,
    arrivals: Arrivals = "poisson",
    duration_s: float,
    deadline_ms: float | None = None,
    seed: int = 0,
    clock: LoadClock | None = None,
) -> LoadPoint:
    """Put one load on a runtime and take the latency of every request, one picture each.

    A full queue refuses (`when_full="refuse"`). With a deadline, the runtime gets what is left of it counted from the
    planned arrival, and drops requests that expire in its queue. A latency ends when the future is done, in the
    thread that does it. Waits for all answers at the end.

    Args:
        runtime: Opened and warmed up. If it tells events (`subscribe`), the mean batch is taken from them.
        pictures: As `submit` takes them; requests go through them in turns.
        rate: Requests in a second.
        arrivals: `"poisson"` or `"fixed"`.
        duration_s: Seconds in which requests arrive.
        deadline_ms: Time that an answer may take; `None` for as long as it takes.
        seed: Of the arrivals and of the bootstrap.
        clock: By default real time.

    Raises:
        ConfigError: There are no pictures, `deadline_ms` is not positive, or the arrivals cannot be planned.
        PargoExportError: A request failed for another reason than load; the first such error, after the last answer.
        MissingDependencyError: SciPy is not installed.
    """
    if not pictures:
        raise ConfigError("pictures: found none, expected at least one to send")
    if deadline_ms is not None and deadline_ms <= 0:
        raise ConfigError(
            f"deadline_ms: found {deadline_ms:g}, expected a positive number, or None for no deadline"
        )
    planned_s = plan_arrivals(arrivals, rate=rate, duration_s=duration_s, seed=seed)
    clock = clock or WallClock()
    answers, batches = _Answers(len(planned_s), clock), _BatchSizes()
    subscribe = getattr(runtime, "subscribe", None)
    unsubscribe = subscribe(batches) if subscribe is not None else None
    late_ms = np.zeros(len(planned_s))
    start_ns = clock.now_ns() + _LEAD_NS
    try:
        for index, arrival_s in enumerate(planned_s):
            planned_ns = start_ns + round(arrival_s * 1e9)
            clock.sleep_until_ns(planned_ns)
            late_ms[index] = (clock.now_ns() - planned_ns) / 1e6
            if answers.error is not None:
                break
            left_s = None if deadline_ms is None else (deadline_ms - late_ms[index]) / 1e3
            if left_s is not None and left_s <= 0:
                continue  # expired before it could be handed over
            try:
                future = runtime.submit(
                    [pictures[index % len(pictures)]], deadline_s=left_s, when_full="refuse"
                )
            except OverloadError:
                continue
            answers.expect(future, index, planned_ns)
        clock.drain()
    finally:
        answers.wait()
        if unsubscribe is not None:
            unsubscribe()
    if answers.error is not None:
        raise answers.error
    return _describe(planned_s, answers.latencies_ms, late_ms, duration_s, deadline_ms, seed, batches.mean())


def _describe(
    planned_s: np.typing.NDArray[np.float64],
    latencies_ms: np.typing.NDArray[np.float64],
    late_ms: np.typing.NDArray[np.float64],
    duration_s: float,
    deadline_ms: float | None,
    seed: int,
    mean_batch: float | None,
) -> LoadPoint:
    """Make the record of a load from what became of its requests."""
    answered = np.isfinite(latencies_ms)
    samples_ms, arrived_s = latencies_ms[answered], planned_s[answered]
    num_requests, num_answered = len(planned_s), len(samples_ms)
    took_s = float((arrived_s + samples_ms / 1e3).max()) if num_answered else duration_s
    # Neighbours in a queue resemble each other: blocks of them are drawn.
    blocks = np.arange(num_answered) * _BLOCKS // max(1, num_answered)
    return LoadPoint(
        offered_per_s=num_requests / duration_s,
        achieved_per_s=num_answered / max(took_s, duration_s),
        duration_s=took_s,
        num_requests=num_requests,
        num_missed=None
        if deadline_ms is None
        else num_requests - int(np.count_nonzero(samples_ms <= deadline_ms)),
        num_refused=num_requests - num_answered,
        samples_ms=tuple(samples_ms.tolist()),
        summary=summarize(samples_ms, seed=seed, rounds=blocks.tolist()) if num_answered else None,
        is_saturated=find_saturation(arrived_s, samples_ms, num_requests=num_requests) is not None,
        mean_batch=mean_batch,
        late_ms=float(np.percentile(late_ms, 99)),
    )
