"""Capture a computation into a CUDA graph, and time several of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pargo_export.bench.probes.clocks import State, StateSampler

__all__ = ["Captured", "capture", "eager", "relative_error", "time_interleaved"]

_WARMUP = 20
_ROUNDS = 5  # every candidate is timed in each: a drift of the clocks meets all of them


@dataclass(frozen=True)
class Captured:
    """Something that runs again and again on the same buffers.

    Attributes:
        replay: Runs it.
        output: What it writes.
    """

    replay: Callable[[], Any]
    output: Tensor


def capture(function: Callable[[Tensor], Tensor], example: Tensor) -> Captured:
    """Warm up on a side stream and capture one call into a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            function(example)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph, stream=stream):
        output = function(example)
    graph.replay()
    torch.cuda.synchronize()
    return Captured(graph.replay, output)


def eager(function: Callable[[Tensor], Tensor], example: Tensor) -> Captured:
    """Run it call by call, as PyTorch does by default."""

    def replay() -> None:
        with torch.no_grad():
            function(example)

    with torch.no_grad():
        output = function(example)
    torch.cuda.synchronize()
    return Captured(replay, output)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of what is expected."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def time_interleaved(
    candidates: Mapping[str, Captured], iterations: int, states: StateSampler | None = None
) -> dict[str, dict[str, Any]]:
    """Time candidates by CUDA events around each call, in rounds.

    Args:
        candidates: What to time, by name.
        iterations: Calls of each.
        states: If given, it reads the GPU's clock in every round, while the calls are still running.

    Returns:
        By name: median, 10th and 99th percentile, and the median of every round, milliseconds; with `states` also the
        clock of every round (MHz) and all reasons why it was lowered; `None` if unknown.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in candidates}
    read: dict[str, list[State]] = {name: [] for name in candidates}
    for _ in range(_ROUNDS):
        for name, candidate in candidates.items():
            for _ in range(_WARMUP):
                candidate.replay()
            times[name].append(_time(candidate, -(-iterations // _ROUNDS), states, read[name]))
    return {name: _summarize(times[name]) | _describe(read[name]) for name in candidates}


def _time(
    candidate: Captured, iterations: int, states: StateSampler | None, read: list[State]
) -> list[float]:
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(iterations)
    ]
    for start, stop in events:
        start.record()
        candidate.replay()
        stop.record()
    if states is not None:
        read.append(states.read())
    torch.cuda.synchronize()
    return [start.elapsed_time(stop) for start, stop in events]


def _summarize(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    low, median, high = np.percentile(np.concatenate(rounds), [10, 50, 99])
    return {
        "median_ms": round(float(median), 4),
        "p10_ms": round(float(low), 4),
        "p99_ms": round(float(high), 4),
        "rounds_ms": [round(float(np.median(times)), 4) for times in rounds],
    }


def _describe(states: Sequence[State]) -> dict[str, Any]:
    if not states:
        return {}
    reasons = [state.throttled for state in states if state.throttled is not None]
    return {
        "rounds_clock_mhz": [state.clock_mhz for state in states],
        "throttled": sorted({name for names in reasons for name in names}) if reasons else None,
    }
