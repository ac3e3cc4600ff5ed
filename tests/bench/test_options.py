"""Choices that make no sense are refused with what to do."""

from __future__ import annotations

import math

import pytest

from pargo_export.bench.options import BenchOptions
from pargo_export.errors import ConfigError


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"backends": ()}, "backends: found none"),
        ({"backends": ("a", "a")}, "named twice"),
        ({"batches": (1, 1)}, "batches: .* named twice"),
        ({"batches": (0,)}, "numbers from 1 on"),
        ({"concurrencies": (2, 0)}, "concurrencies: found 2, 0"),
        ({"iterations": 3, "duration_s": 1.0}, "give one of them"),
        ({"iterations": 0}, "iterations: found 0, expected at least 1"),
        ({"num_warmup": -1}, "num_warmup: found -1"),
        ({"threads": 0}, "threads: found 0"),
        ({"duration_s": 0.0}, "duration_s: found 0.0, expected more than 0"),
        ({"sustained_s": math.inf}, "sustained_s: found inf"),
        ({"load": (10.0, -1.0)}, "load: found -1.0"),
        ({"load": "auto", "arrivals": "regular"}, "'poisson' or 'fixed'"),
        ({"deadline_ms": 5.0}, "give load too"),
        ({"load": "auto", "gather_ms": -1.0}, "gather_ms: found -1.0"),
        ({"baselines": ("torch", "somewhere/bundle")}, "baseline torch runs the model as it was trained"),
    ],
)
def test_refused(choices, message):
    """Each has its own message."""
    with pytest.raises(ConfigError, match=message):
        BenchOptions(**choices)


def test_how_long():
    """Runs or seconds, with a default; never more rounds than runs."""
    assert BenchOptions().effective_duration_s == 5
    assert BenchOptions(duration_s=2).effective_duration_s == 2
    assert BenchOptions(iterations=3).effective_duration_s is None
    assert BenchOptions(iterations=3).effective_rounds == 3
    assert BenchOptions(iterations=30).effective_rounds == 10
