"""Results of benchmarks made of given times, and a server in simulated time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.records import (
    BenchResult,
    Boundary,
    BundleFacts,
    CpuState,
    Environment,
    InputFacts,
    Measurement,
    Settings,
    Steadiness,
    Subject,
    Summary,
)
from pargo_export.errors import DeadlineError, OverloadError

STEADY = Steadiness(is_steady=True, first_steady=0, drift=1.0, reason="steady from the first run on")


def summary_of(samples_ms: NDArray[np.float64]) -> Summary:
    """Return the summary of times, without an interval: it takes long and is tested elsewhere."""
    p90, p95, p99 = (float(value) for value in np.percentile(samples_ms, (90, 95, 99)))
    return Summary(
        num_samples=len(samples_ms),
        min_ms=float(samples_ms.min()),
        mean_ms=float(samples_ms.mean()),
        median_ms=float(np.median(samples_ms)),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=float(samples_ms.max()),
        std_ms=float(samples_ms.std()),
        median_interval=None,
        num_outliers=0,
    )


def measurement_of(
    times_ms: NDArray[np.float64],
    *,
    subject: str = "fp32 on onnxruntime",
    boundary: Boundary = "run",
    **fields: Any,
) -> Measurement:
    """Return a measurement of times, float64 `[rounds, runs]`."""
    samples = times_ms.ravel()
    values: dict[str, Any] = {
        "subject": subject,
        "batch": 1,
        "boundary": boundary,
        "clock": "host",
        "samples_ms": samples.tolist(),
        "rounds": np.repeat(np.arange(len(times_ms)), times_ms.shape[1]).tolist(),
        "summary": summary_of(samples),
        "images_per_s": 1000 / max(1e-3, float(samples.mean())),
        "steadiness": STEADY,
    }
    return Measurement(**values | fields)


def result_of(measurements: Sequence[Measurement]) -> BenchResult:
    """Return a result with these measurements."""
    names = dict.fromkeys(item.subject for item in measurements)
    return BenchResult(
        created="2025-01-01T00:00:00+00:00",
        settings=Settings(
            batches=(1,), num_rounds=10, iterations=100, duration_s=None, num_warmup=3, threads=2, seed=0
        ),
        environment=Environment(
            platform="Linux 6.1",
            python="3.11.2",
            cpu=CpuState(model="AMD EPYC 7B13", num_usable_cores=2, num_logical_cores=2, features=("avx2",)),
            memory_bytes=24 << 30,
            packages={"onnxruntime": "1.22.0", "numpy": "2.2.0"},
        ),
        bundle=BundleFacts(
            path="bundle",
            manifest_sha256="0" * 64,
            model="tiny",
            num_parameters=1000,
            image_size=(28, 28),
            num_visual_tokens=6,
        ),
        inputs=InputFacts(num_pictures=1, sha256="1" * 64, names=("a.jpg",), median_megapixels=0.3),
        subjects=tuple(
            Subject(name=name, kind="runtime", bundle="bundle", precision="float32", backend="onnxruntime")
            for name in names
        ),
        measurements=tuple(measurements),
    )


class SimulatedServer:
    """Answers one request after the other, each in the same time, in a time of its own: nothing waits for real.

    It is the clock of the load generator and what the load is put on. It counts as `Runtime` does: a request is
    refused if `max_pending` others wait, and dropped if its deadline has passed when its turn comes.

    Args:
        service_ms: Time of a request.
        max_pending: Requests that may wait.
        wakes_late_ms: How much later than it should the generator wakes up.
    """

    def __init__(self, service_ms: float, *, max_pending: int = 10**9, wakes_late_ms: float = 0.0) -> None:
        self.time_ns = 5_000_000_000
        self.num_computed = 0
        self._service_ns, self._late_ns = round(service_ms * 1e6), round(wakes_late_ms * 1e6)
        self._max_pending = max_pending
        self._free_ns = 0
        self._begins: list[int] = []  # of the requests that wait
        self._order = itertools.count()
        self._events: list[tuple[int, int, Future[Any], BaseException | None]] = []

    def now_ns(self) -> int:
        """Return the simulated time."""
        return self.time_ns

    def sleep_until_ns(self, moment: int) -> None:
        """Let time pass, and answer what is due."""
        self._advance(moment + self._late_ns)

    def drain(self) -> None:
        """Answer everything."""
        self._advance(max([event[0] for event in self._events], default=self.time_ns))

    def submit(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        when_full: str = "wait",
    ) -> Future[Any]:
        """Queue a request."""
        assert (len(images), batch_size, priority, when_full) == (1, None, 0, "refuse")
        self._begins = [begin for begin in self._begins if begin > self.time_ns]
        if len(self._begins) >= self._max_pending:
            raise OverloadError("the queue is full")
        future: Future[Any] = Future()
        begin = max(self.time_ns, self._free_ns)
        self._begins.append(begin)
        if deadline_s is not None and begin > self.time_ns + deadline_s * 1e9:
            self._push(begin, future, DeadlineError("too late"))
        else:
            self.num_computed += 1
            self._free_ns = begin + self._service_ns
            self._push(self._free_ns, future, self._fail(images[0]))
        return future

    def compute(self) -> object:
        """Return the result of a request."""
        return "tokens"

    def _fail(self, image: Any) -> BaseException | None:
        return image if isinstance(image, BaseException) else None

    def _push(self, moment: int, future: Future[Any], error: BaseException | None) -> None:
        heapq.heappush(self._events, (moment, next(self._order), future, error))

    def _advance(self, moment: int) -> None:
        while self._events and self._events[0][0] <= moment:
            self.time_ns, _, future, error = heapq.heappop(self._events)
            if error is None:
                future.set_result(self.compute())
            else:
                future.set_exception(error)
        self.time_ns = max(self.time_ns, moment)
