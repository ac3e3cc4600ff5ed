"""Real photographs, as files, for every form of calibration data."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import skimage
from PIL import Image

PHOTOS = Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Five small photographs, encoded as JPEG and PNG in turn."""
    encoded = []
    for number, name in enumerate(["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "ihc.png"]):
        file = io.BytesIO()
        with Image.open(PHOTOS / name) as image:
            image.convert("RGB").resize((48, 32)).save(file, ["JPEG", "PNG"][number % 2])
        encoded.append(file.getvalue())
    return encoded
