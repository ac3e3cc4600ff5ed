"""Noise is the same on every run, and says what it is."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_calibration import CalibrationDataError, random_source


def test_each_image_depends_on_seed_and_number_alone():
    """Loaded in any order, the pixels are the same; another seed gives others."""
    source = random_source(3, 7, height=4, width=6)
    entries = source.entries()
    last, first = source.load(entries[2]), source.load(entries[0])
    assert source.kind == source.location == "random"
    assert first.content.shape == (3, 4, 6)
    assert first.content.dtype == np.uint8
    assert len(entries) == 3
    assert random_source(9, 7, height=4, width=6).load(entries[2]).sha256 == last.sha256 != first.sha256
    other = random_source(3, 8, height=4, width=6)
    assert other.load(other.entries()[0]).sha256 != first.sha256


def test_uses_the_whole_range():
    """Uniform over all 256 values."""
    source = random_source(1, 0)
    content = source.load(source.entries()[0]).content
    assert content.shape == (3, 336, 336)
    assert np.unique(content).size == 256
    assert abs(content.mean() - 127.5) < 1


@pytest.mark.parametrize("options", [(0, 1), (-1, 1), (1, -1)])
def test_refuses_numbers_out_of_range(options):
    """No images or a negative seed is a mistake."""
    with pytest.raises(CalibrationDataError, match="expected positive numbers and a seed of 0 or more"):
        random_source(*options)
