"""Read something at a fixed period, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pargo_export.bench.probes.sensor import SensorError

__all__ = ["PeriodicReader"]

Reading = TypeVar("Reading")

_GIVE_UP_AFTER = 10  # failures in a row: one is an I2C bus that was busy, ten are a sensor that is gone
_JOIN_S = 5.0


class PeriodicReader(Generic[Reading]):
    """Calls `read` at a fixed period until it is stopped, and keeps what it returned with the time.

    Between readings the thread sleeps. A period that was missed, because a reading took longer, is left out.

    Args:
        read: What is called.
        period_s: Seconds from one reading to the next.

    Attributes:
        problem: The first failure of `read`; empty if there was none.
    """

    def __init__(self, read: Callable[[], Reading], period_s: float) -> None:
        if period_s <= 0:
            raise ValueError(f"the period is {period_s} s, expected more than 0")
        self.problem = ""
        self._read, self._period_ns = read, round(period_s * 1e9)
        self._readings: list[tuple[int, Reading]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pargo-bench-probe", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, release: Callable[[], None] = lambda: None) -> None:
        """End: ask the thread, call `release`, which must end a reading that waits, and wait for the thread."""
        self._stop.set()
        self._thread.join(2 * self._period_ns / 1e9)
        release()
        self._thread.join(_JOIN_S)

    def readings(self) -> list[tuple[int, Reading]]:
        """Return the readings so far, each with the `time.perf_counter_ns()` at which it was there."""
        return list(self._readings)

    def _run(self) -> None:
        begin, ticks, failures = time.perf_counter_ns(), 0, 0
        while not self._stop.is_set():
            try:
                value = self._read()
            except SensorError as error:
                failures += 1
                if self._stop.is_set() or failures == _GIVE_UP_AFTER:
                    self.problem = self.problem or ("" if self._stop.is_set() else str(error))
                    return
                self.problem = self.problem or str(error)
            else:
                failures = 0
                self._readings.append((time.perf_counter_ns(), value))
            ticks = max(ticks + 1, (time.perf_counter_ns() - begin) // self._period_ns + 1)
            self._stop.wait(max(0, begin + ticks * self._period_ns - time.perf_counter_ns()) / 1e9)
