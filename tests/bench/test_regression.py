"""What became slower from one run to another."""

from __future__ import annotations

import numpy as np
import pytest
from bench_cases import measurement_of, result_of

from pargo_export.bench.records import Steadiness
from pargo_export.bench.regression import find_regressions
from pargo_export.errors import ConfigError

PAIRS, ROUNDS, RUNS = 200, 10, 8


def runs(scale, *, seed, count=PAIRS):
    """Return the times of one run of the benchmark: `count` subjects, each on a machine that drifts from round to round."""
    random = np.random.default_rng(seed)
    drift = np.empty((count, ROUNDS, 1))
    drift[:, 0] = random.normal(0, 0.01, (count, 1))
    for index in range(1, ROUNDS):  # correlated by a half, 1 % large
        drift[:, index] = 0.5 * drift[:, index - 1] + np.sqrt(0.75) * random.normal(0, 0.01, (count, 1))
    times = 20 * scale * np.exp(drift) * random.lognormal(0, 0.03, (count, ROUNDS, RUNS))
    return result_of([measurement_of(item, subject=f"subject {index}") for index, item in enumerate(times)])


@pytest.fixture(scope="module")
def before():
    """Return the old run."""
    return runs(1.0, seed=1)


@pytest.fixture(scope="module")
def unchanged():
    """Return a later run of the same."""
    return runs(1.0, seed=2)


def test_noise_is_seldom_called_a_regression(before, unchanged):
    """Of 200 comparisons without a change at most 7 % are proven even if nothing is allowed, and none beside 5 %."""
    assert len(find_regressions(before, unchanged, fail_above=0).proven) <= 14
    found = find_regressions(before, unchanged, fail_above=0.05)
    assert not found.proven
    assert len(found.changes) == PAIRS
    assert not found.warnings


def test_a_slowdown_of_exactly_what_is_allowed_is_seldom_a_regression(before):
    """At the limit itself chance decides in at most 7 % of cases."""
    assert len(find_regressions(before, runs(1.05, seed=3), fail_above=0.05).proven) <= 14


def test_a_tenth_slower_is_found(before):
    """Of 200 slowdowns by 10 % more than 90 % are proven to exceed 5 %, and all others are suspected."""
    found = find_regressions(before, runs(1.1, seed=4), fail_above=0.05)
    assert len(found.proven) > 180
    assert len(found.proven) + len(found.suspected) >= 199
    assert {
        change.status for change in find_regressions(before, runs(0.8, seed=5), fail_above=0.05).changes
    } == {"faster"}


def steps(*times_ms, subject="a", **fields):
    """Return a measurement with rounds of these times, two runs each."""
    return measurement_of(np.array([[value, value] for value in times_ms]), subject=subject, **fields)


def test_a_change_says_what_was_and_what_is():
    """Times, ratio and rounds are those of both results."""
    old, new = result_of([steps(10, 11, 10, 11)]), result_of([steps(20, 22, 20)])
    (change,) = find_regressions(old, new, fail_above=0.5).changes
    assert change.old_ms == pytest.approx(110**0.5)
    assert change.new_ms == pytest.approx((20 * 22 * 20) ** (1 / 3))
    assert change.ratio == pytest.approx(change.new_ms / change.old_ms)
    assert (change.num_rounds, change.status) == ((4, 3), "regression")
    assert change.interval is not None
    assert 1.5 < change.interval.low < change.ratio < change.interval.high


def test_one_round_proves_nothing():
    """However much slower it is, one round makes a suspicion."""
    (change,) = find_regressions(result_of([steps(10)]), result_of([steps(30, 30)]), fail_above=0.05).changes
    assert (change.status, change.interval) == ("suspected", None)
    assert change.doubt == "one of the runs has a single round"


def test_a_machine_that_is_disturbed_proves_nothing():
    """Where most runs wait for something else, and some do not, the change is suspected, and why is told."""
    random = np.random.default_rng(8)
    calm = 20 * random.lognormal(0, 0.02, (ROUNDS, 20))
    disturbed = 20 * random.lognormal(0, 0.02, (ROUNDS, 20))
    disturbed[:, 3:] *= 1.5
    old = result_of([measurement_of(calm)])
    (change,) = find_regressions(old, result_of([measurement_of(disturbed)]), fail_above=0.05).changes
    assert change.interval is not None
    assert change.interval.low > 1.4
    assert (change.status, change.doubt[:16]) == ("suspected", "the fastest runs")
    (change,) = find_regressions(old, result_of([measurement_of(calm * 1.5)]), fail_above=0.05).changes
    assert (change.status, change.doubt) == ("regression", "")


@pytest.mark.parametrize(
    ("then", "now", "doubt"),
    [
        (0.9, None, "others used 90% of the CPU time of the old run"),
        (0.3, 0.5, "others used 30% of the CPU time of the old run and 50% of the CPU time of the new run"),
        (0.2, 0.2, ""),
    ],
)
def test_a_machine_that_others_use_proves_nothing(then, now, doubt):
    """If others had more than a quarter of it in one of the runs, every regression is a suspicion, and why is told."""
    old = result_of([steps(10, 11, 10)]).model_copy(update={"other_load": then})
    new = result_of([steps(30, 31, 30)]).model_copy(update={"other_load": now})
    (change,) = find_regressions(old, new, fail_above=0.05).changes
    assert (change.status, change.doubt) == ("suspected" if doubt else "regression", doubt)
    (change,) = find_regressions(new, old, fail_above=0.05).changes
    assert (change.status, change.doubt) == ("no regression" if doubt else "faster", "")


def test_measurements_are_matched_by_what_they_measure():
    """Another batch, boundary, clock or subject is another measurement; what is gone is named."""
    old = result_of(
        [steps(10, 11), steps(90, 91, batch=8), steps(5, 5, boundary="compute", clock="cuda-events")]
    )
    new = result_of([steps(5, 5, boundary="compute"), steps(10, 11), steps(1, 1, subject="b")])
    found = find_regressions(old, new, fail_above=0.05)
    assert [(change.subject, change.batch, change.boundary) for change in found.changes] == [("a", 1, "run")]
    assert found.missing == ("a, batch 8, run (host)", "a, batch 1, compute (cuda-events)")
    with pytest.raises(ConfigError, match=r"share no measurement.*the new one has b, batch 1, run \(host\)"):
        find_regressions(old, result_of([steps(1, 1, subject="b")]), fail_above=0.05)


def test_times_that_begin_with_decoding_are_not_compared_on_other_pictures():
    """On other pictures the times of the graph are compared, those with decoding are not, and that is told."""
    items = [steps(10, 11), steps(30, 31, boundary="end_to_end"), steps(20, 21, boundary="preprocess")]
    old, new = result_of(items), result_of(items)
    other = new.model_copy(update={"inputs": new.inputs.model_copy(update={"sha256": "2" * 64})})
    assert len(find_regressions(old, new, fail_above=0).changes) == 3
    found = find_regressions(old, other, fail_above=0)
    assert [change.boundary for change in found.changes] == ["run"]
    assert found.warnings == ("other pictures: 2 times that begin with decoding are not compared",)


def test_times_that_did_not_settle_are_a_warning():
    """Which of the two runs it was is told, with the reason."""
    restless = Steadiness(is_steady=False, first_steady=None, drift=1.2, reason="the times keep rising")
    found = find_regressions(
        result_of([steps(10, 11)]), result_of([steps(10, 11, steadiness=restless)]), fail_above=0
    )
    assert found.warnings == (
        "the new times of a, batch 1, run (host) did not settle: the times keep rising",
    )


def test_a_time_of_zero_has_no_ratio():
    """A copy that is none, as where CPU and GPU share memory, is left out."""
    items = [steps(10, 11), steps(0, 0, boundary="host_to_device")]
    assert len(find_regressions(result_of(items), result_of(items), fail_above=0).changes) == 1


@pytest.mark.parametrize("fail_above", [-0.1, float("nan")])
def test_what_is_allowed_must_be_a_share(fail_above):
    """The message says what the number means."""
    result = result_of([steps(10, 11)])
    with pytest.raises(ConfigError, match=r"0\.05 are 5 %"):
        find_regressions(result, result, fail_above=fail_above)
