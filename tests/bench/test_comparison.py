"""Two subjects measured in turns."""

from __future__ import annotations

import numpy as np
import pytest
from bench_cases import measurement_of

from pargo_export.bench.comparison import compare_rounds

ROUNDS, RUNS = 10, 12


def pair(ratio, *, seed=0, drift=0.0, rounds=ROUNDS):
    """Return two measurements of which the second takes `ratio` times as long, on a machine that drifts under both."""
    random = np.random.default_rng(seed)
    speed = np.exp(np.cumsum(random.normal(0, drift, (rounds, 1)), axis=0))
    one, other = (20 * speed * random.lognormal(0, 0.03, (rounds, RUNS)) for _ in range(2))
    return measurement_of(one, subject="old"), measurement_of(other * ratio, subject="new")


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.8, "faster"), (1.25, "slower"), (1.0, "no difference shown")]
)
def test_the_ratio_is_found_with_its_verdict(ratio, verdict):
    """The ratio, its interval and what it shows are those that the times were made with."""
    found = compare_rounds(*pair(ratio))
    assert found is not None
    assert found.ratio == pytest.approx(ratio, rel=0.02)
    assert found.interval.low < ratio < found.interval.high
    assert (found.verdict, found.num_rounds) == (verdict, ROUNDS)
    assert (found.baseline, found.candidate, found.batch, found.boundary) == ("old", "new", 1, "run")


def test_what_slows_the_machine_down_for_both_cancels():
    """On a machine that drifts by a tenth from round to round, a difference of 4 % is still shown."""
    base, candidate = pair(1.04, drift=0.1, rounds=20)
    assert max(base.samples_ms) > 1.5 * min(base.samples_ms)
    found = compare_rounds(base, candidate)
    assert found is not None
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(1.04, rel=0.015)


def test_no_difference_is_seldom_called_one():
    """Of 200 pairs without a difference, on a machine that drifts, at most one in fifteen gets a verdict."""
    verdicts = []
    for seed in range(200):
        found = compare_rounds(*pair(1.0, seed=seed, drift=0.05))
        assert found is not None
        verdicts.append(found.verdict)
    assert sum(verdict != "no difference shown" for verdict in verdicts) <= 14


def test_only_rounds_in_which_both_were_measured_count():
    """Rounds of one alone, as after a failure, are left out; of less than two shared ones nothing is said."""
    base, candidate = pair(0.5)
    late = candidate.model_copy(update={"rounds": tuple(index + 7 for index in candidate.rounds)})
    found = compare_rounds(base, late)
    assert found is not None
    assert found.num_rounds == 3
    assert "Student's t" in found.interval.method
    alone = candidate.model_copy(update={"rounds": tuple(index + 9 for index in candidate.rounds)})
    assert compare_rounds(base, alone) is None


@pytest.mark.parametrize(
    ("field", "value"), [("batch", 2), ("boundary", "compute"), ("clock", "cuda-events")]
)
def test_different_measurements_are_not_compared(field, value):
    """Another batch, boundary or clock is an error, which names both."""
    base, candidate = pair(1.0)
    with pytest.raises(ValueError, match=f"{field}: found {value!r} of new"):
        compare_rounds(base, candidate.model_copy(update={field: value}))
