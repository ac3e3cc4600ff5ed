"""Blocks of calls: how many, by whom, and what they say."""

from __future__ import annotations

import threading
import time

import pytest

from pargo_export.bench.closed_loop import time_block


def test_iterations():
    """So many calls are made, each with its number, and timed around the call alone."""
    block = time_block(lambda index: time.sleep(0.002) or index, iterations=3, keep_results=True)
    assert block.results == [0, 1, 2]
    assert min(block.samples_ns) >= 2e6
    assert block.end_ns - block.start_ns >= sum(block.samples_ns)


def test_results_are_dropped_unless_kept():
    """Visual tokens of thousands of runs are not kept in memory."""
    assert time_block(lambda _: "tokens", iterations=3).results == []


def test_duration():
    """Calls are begun until the time is over, and at least one is made."""
    assert len(time_block(lambda _: None, duration_s=1e-9).samples_ns) == 1
    assert len(time_block(lambda _: time.sleep(0.001), duration_s=0.05).samples_ns) >= 2


def test_callers_work_at_the_same_time():
    """With three callers three calls run at once; all together make the number that was asked for."""
    barrier = threading.Barrier(3, timeout=20)
    block = time_block(lambda _: barrier.wait(), concurrency=3, iterations=6)
    assert len(block.samples_ns) == 6


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_error_ends_the_block(concurrency):
    """What a call raises comes out, whichever thread it was in."""

    def fail(index):
        if index == 2:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        time_block(fail, concurrency=concurrency, iterations=1000)


def test_neither_number_nor_time():
    """A block needs an end."""
    with pytest.raises(ValueError, match="iterations or duration_s"):
        time_block(lambda _: None)
