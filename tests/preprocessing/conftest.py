"""Photographs that scikit-image installs, and ways to write them as files."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PHOTOS = Path(find_spec("skimage").submodule_search_locations[0]) / "data"


@pytest.fixture(scope="session")
def photo_path():
    """Return the path of a photograph by its file name."""
    return PHOTOS.joinpath


@pytest.fixture(scope="session")
def cat():
    """Return a photograph of a cat, uint8 [60, 90, 3], no symmetry."""
    with Image.open(PHOTOS / "chelsea.png") as image:
        return np.asarray(image.resize((90, 60)))


@pytest.fixture(scope="session")
def encode():
    """Return a function that writes an array or image in a format and returns the bytes."""

    def write(picture, file_format, **options):
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        file = BytesIO()
        image.save(file, file_format, **options)
        return file.getvalue()

    return write
