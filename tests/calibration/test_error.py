"""The closed form of the squared error agrees with quantizing many values."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_calibration.histogram import SignedHistogram
from pargo_calibration.ranges.error import Density, float8_antiderivative, integer_antiderivative
from pargo_calibration.ranges.float8 import round_to_float8


@pytest.fixture(scope="module")
def values():
    """A million values spread evenly inside wide bins: what the closed form assumes, with gaps and tails."""
    generator = np.random.default_rng(0)
    return np.concatenate(
        [
            generator.uniform(-1, 0.5, 600_000),
            generator.uniform(2, 3, 399_000),
            generator.uniform(3.5, 3.9, 1000),
        ]
    ).astype(np.float32)


@pytest.fixture(scope="module")
def histogram(values):
    """Count the values."""
    found = SignedHistogram()
    found.add(values, float(np.abs(values).max()))
    return found


@pytest.mark.parametrize("scale", [3.9 / 127, 2.5 / 127, 0.001, 1.0])
@pytest.mark.parametrize("levels", [(-128, 127), (-40, 215), (0, 3)])
def test_integer_error_is_what_rounding_and_clipping_cost(values, histogram, scale, levels):
    """For any scale and zero point, clipping or not, the expected error is the measured one."""
    low, high = levels
    density = Density.of_values(histogram)
    found = density.mean_squared_error(scale, integer_antiderivative(density.edges / scale, low, high))
    quantized = np.clip(np.rint(values / scale), low, high) * scale
    assert found == pytest.approx(np.mean((values - quantized) ** 2), rel=1e-2)


@pytest.mark.parametrize("threshold", [3.9, 2.0, 0.3])
def test_float8_error_is_what_rounding_and_clipping_cost(values, histogram, threshold):
    """On the uneven FP8 grid too, with magnitudes alone."""
    scale = threshold / 448
    density = Density.of_magnitudes(histogram)
    found = density.mean_squared_error(scale, float8_antiderivative(density.edges / scale))
    quantized = round_to_float8(values / np.float32(scale)) * scale
    assert found == pytest.approx(np.mean((values - quantized) ** 2), rel=1e-2)


@pytest.mark.parametrize("histogram_form", [Density.of_values, Density.of_magnitudes])
def test_density_integrates_to_one(histogram, histogram_form):
    """The drops describe a density: they sum to zero, and their first moment is the whole mass."""
    density = histogram_form(histogram)
    assert density.drops.sum() == pytest.approx(0, abs=1e-9)
    assert density.drops @ density.edges == pytest.approx(1)
