"""What is told of the times of a run."""

from __future__ import annotations

import numpy as np
import pytest
from bench_cases import measurement_of

from pargo_export.bench.steadiness import assess
from pargo_export.bench.summaries import find_doubts

RISING = [10.0 + 0.2 * index for index in range(60)]


def measured(samples, **facts):
    """Return a measurement of these times, judged."""
    item = measurement_of(np.array([samples]), **facts)
    return item.model_copy(update={"steadiness": assess(samples)})


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([10.0] * 60, []),
        (RISING, ["a: 1 of 1 series of times did not settle"]),
        ([10.0] * 9, ["1 of 1 series have fewer than 10 runs: too few to tell whether their times settled"]),
        (
            [10.0, 30.0] * 4,
            ["1 of 1 series have fewer than 10 runs: too few to tell whether their times settled"],
        ),
    ],
)
def test_times_that_did_not_settle(samples, expected):
    """They are warned of by subject; what is too short to be judged, in one line for all."""
    found = list(find_doubts([measured(samples, subject="a")], num_rounds=10))
    assert [doubt.partition(" (")[0].partition(";")[0] for doubt in found] == expected


def test_few_rounds_are_warned_of():
    """Fewer than five tell little of how the machine changes."""
    (doubt,) = find_doubts([measured([10.0] * 60)], num_rounds=4)
    assert doubt.startswith("4 rounds are too few")
