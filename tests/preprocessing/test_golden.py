"""What the official dataset class returns for ten pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tolerances import TOLERANCES

from pargo_export.preprocessing import PreprocessSpec, preprocess

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess"
EXPECTED = load_file(GOLDEN / "expected.safetensors")
MODES = {
    "pad84": ("pad", 84),
    "pad112": ("pad", 112),
    "resize84": ("resize", 84),
    "square_resize84": ("square-resize", 84),
}


@pytest.mark.parametrize("key", sorted(EXPECTED))
def test_matches_the_official_code(key):
    """Every mode gives the official values for every file format and colour mode."""
    folder, file = key.split("/")
    mode, side = MODES[folder]
    spec = PreprocessSpec(mode=mode, height=side, width=side)
    (found,) = preprocess([GOLDEN / "inputs" / file], spec)
    tolerance = np.full(3, TOLERANCES["preprocess-lossless"].value)
    if file.endswith(".jpg"):
        tolerance += TOLERANCES["preprocess-jpeg-levels"].value / 255 / np.array(spec.std)
    error = np.abs(found - EXPECTED[key]).max(axis=(1, 2))
    assert (error <= tolerance).all(), f"{key}: {error}"


def test_golden_file_covers_every_picture_in_every_mode():
    """No picture and no mode of the golden folder is left out."""
    files = [path.name for path in (GOLDEN / "inputs").iterdir()]
    assert sorted(EXPECTED) == sorted(f"{folder}/{file}" for folder in MODES for file in files)
