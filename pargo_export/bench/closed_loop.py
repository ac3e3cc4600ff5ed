"""Time calls in a closed loop: each caller waits for its answer before it calls again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Block", "time_block"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Block(Generic[_Result]):
    """Runs that were made one after another, or by several callers at once.

    Attributes:
        samples_ns: Time of each run by `time.perf_counter_ns`, in the order in which they began.
        results: What each returned, in the same order; empty unless they are kept.
        start_ns: Begin of the first one; on Linux this clock is the same in all processes.
        end_ns: End of the last one.
    """

    samples_ns: list[int]
    results: list[_Result]
    start_ns: int
    end_ns: int


@dataclass
class _Tally(Generic[_Result]):
    """What the callers of a block share."""

    call: Callable[[int], _Result]
    limit: int | None
    deadline_ns: int | None
    keeps_results: bool
    begun: int = 0
    runs: list[tuple[int, int, _Result | None]] = field(default_factory=list)  # begin, end, result
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_index(self) -> int | None:
        """Return the index of the next run, or `None` if there shall be none."""
        with self.lock:
            if self.error is not None or (self.limit is not None and self.begun >= self.limit):
                return None
            if self.begun and self.deadline_ns is not None and time.perf_counter_ns() >= self.deadline_ns:
                return None
            self.begun += 1
            return self.begun - 1

    def work(self) -> None:
        """Make runs until there shall be none."""
        while (index := self.next_index()) is not None:
            try:
                start = time.perf_counter_ns()
                result = self.call(index)
                end = time.perf_counter_ns()
            except BaseException as error:  # noqa: BLE001 - raised again by `time_block`
                self.error = error
                return
            self.runs.append((start, end, result if self.keeps_results else None))
            del result  # freed after the time was taken


def time_block(
    call: Callable[[int], _Result],
    *,
    concurrency: int = 1,
    iterations: int | None = None,
    duration_s: float | None = None,
    keep_results: bool = False,
) -> Block[_Result]:
    """Time calls, at least one, until there were enough or the time is over; runs that were begun are finished.

    Args:
        call: Called with the number of the run, from 0 on; by `concurrency` threads at once if that is more than 1.
        concurrency: Callers.
        iterations: Runs of all callers together.
        duration_s: Seconds in which runs are begun.
        keep_results: Keep what `call` returns.

    Raises:
        ValueError: Neither `iterations` nor `duration_s` is given.
        Exception: What `call` raised.
    """
    if iterations is None and duration_s is None:
        raise ValueError("expected iterations or duration_s, found neither")
    deadline = None if duration_s is None else time.perf_counter_ns() + int(duration_s * 1e9)
    tally = _Tally(call, iterations, deadline, keep_results)
    if concurrency == 1:
        tally.work()
    else:
        threads = [threading.Thread(target=tally.work) for _ in range(concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if tally.error is not None:
        raise tally.error
    runs = sorted(tally.runs, key=lambda run: run[0])
    return Block(
        samples_ns=[end - start for start, end, _ in runs],
        results=[result for _, _, result in runs if result is not None],
        start_ns=runs[0][0],
        end_ns=max(end for _, end, _ in runs),
    )
