"""Statistics depend on the values alone, and survive storage."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from pargo_calibration import CalibrationError, TensorStatistics

CHANNELS = 3
matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 8), st.just(CHANNELS)), elements=st.floats(width=32)
)

unhurried = settings(deadline=None)  # other work on the machine is no failure


def statistics_of(*batches):
    """Take in batches in turn."""
    statistics = TensorStatistics(batches[0].shape[-1])
    for batch in batches:
        statistics.update(batch)
    return statistics


def assert_equal(found, expected):
    """Compare everything that is stored, bit for bit."""
    for name, array in expected.to_arrays().items():
        assert np.array_equal(found.to_arrays()[name], array), name


@unhurried
@given(matrices, st.randoms(use_true_random=False), st.integers(1, 8))
def test_order_and_batches_do_not_matter(values, random, size):
    """Shuffled rows in batches of any size, or in shards that are merged, equal one pass; NaN included."""
    rows = list(values)
    random.shuffle(rows)
    batches = [np.stack(rows[start : start + size]) for start in range(0, len(rows), size)]
    expected = statistics_of(values)
    assert_equal(statistics_of(*batches), expected)
    merged = TensorStatistics(CHANNELS)
    for batch in reversed(batches):
        merged.merge(statistics_of(batch))
    assert_equal(merged, expected)


@unhurried
@given(matrices)
def test_agrees_with_numpy(values):
    """Extremes and counts are those of the finite values; the others are counted apart."""
    found = statistics_of(values)
    finite = values[np.isfinite(values)]
    assert found.count == finite.size == found.histogram.counts.sum()
    assert found.num_nonfinite == values.size - finite.size
    assert found.minimum == finite.min(initial=np.inf)
    assert found.maximum == finite.max(initial=-np.inf)
    masked = np.where(np.isfinite(values), np.abs(values), 0)
    assert np.array_equal(found.channel_max_abs, masked.max(axis=0))
    assert found.max_abs == masked.max()


def test_leading_axes_are_all_positions():
    """`[B, N, C]` and `[B * N, C]` are the same, in any memory layout and from float16."""
    values = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float16)
    expected = statistics_of(values.astype(np.float32).reshape(10, 7))
    assert_equal(statistics_of(values), expected)
    assert_equal(statistics_of(np.asfortranarray(values)), expected)


def test_an_empty_batch_changes_nothing():
    """No images, no values; the state before the first value is what numpy calls empty."""
    found = statistics_of(np.zeros((0, 4), np.float32))
    assert (found.count, found.minimum, found.maximum, found.max_abs) == (0, np.inf, -np.inf, 0)


@unhurried
@given(matrices)
def test_survives_safetensors(values):
    """Stored and read back, nothing has changed, and it can go on."""
    statistics = statistics_of(values)
    restored = TensorStatistics.from_arrays(load(save(statistics.to_arrays())))
    assert_equal(restored, statistics)
    restored.update(values)
    assert_equal(restored, statistics_of(values, values))


def test_stored_arrays_are_copies():
    """Going on after `to_arrays` does not change what was taken out."""
    statistics = statistics_of(np.ones((2, 3), np.float32))
    arrays = statistics.to_arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    statistics.update(np.full((2, 3), 9, np.float32))
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("histogram", np.zeros(7, np.int64), r"histogram has shape \[7\]"),
        ("histogram", None, r"lack \['histogram'\]"),
        ("channel_max_abs", np.zeros((2, 2), np.float32), r"channel_max_abs has shape \[2, 2\]"),
        ("channel_max_abs", np.zeros(0, np.float32), "num_channels is 0"),
        ("exponent", np.array(2000), "exponent is 2000"),
        ("count", np.array(5), "histogram holds 6 values, expected count = 5"),
    ],
)
def test_refuses_arrays_that_contradict_each_other(name, value, message):
    """Stored statistics that were cut, mixed up or edited are refused."""
    arrays = statistics_of(np.ones((2, 3), np.float32)).to_arrays()
    arrays[name] = value
    with pytest.raises(CalibrationError, match=message):
        TensorStatistics.from_arrays({key: array for key, array in arrays.items() if array is not None})


def test_refuses_other_channels():
    """Another number of channels is another tensor."""
    statistics = TensorStatistics(3)
    for values in (np.zeros((2, 4), np.float32), np.float32(1)):
        with pytest.raises(CalibrationError, match=r"expected \[..., 3\]"):
            statistics.update(values)
    with pytest.raises(CalibrationError, match="4 channels cannot be merged into 3"):
        statistics.merge(TensorStatistics(4))


def test_is_fast_enough():
    """An image has 80 million activation values: a tenth of the wanted speed would already take six seconds."""
    values = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    statistics = TensorStatistics(1024)
    start = time.process_time()
    for _ in range(4):
        statistics.update(values)
    values_per_s = 4 * values.size / (time.process_time() - start)
    assert values_per_s > 13e6
