"""Backgrounds: crops of the photographs that scikit-image and scikit-learn ship, split by photograph.

Nothing is downloaded. A photograph belongs to one split alone, so that no background of the test set has been
seen in training or in calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

__all__ = ["IMAGE_SIZE", "PHOTOGRAPHS", "SPLITS", "Split", "background", "photograph"]

Split: TypeAlias = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
IMAGE_SIZE = 96  # pixels; the input of the sample model, so that no resizing blurs small things

PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut", "coffee", "motorcycle", "china", "camera", "brick", "gravel"),
    "calibration": ("rocket", "grass"),
    "test": ("chelsea", "flower"),
}
_READERS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}
_SIDES = (72, 360)  # of a crop, in pixels of the photograph
_BRIGHTNESS = (-40.0, 40.0)
_CONTRAST = (0.5, 1.1)


@cache
def photograph(name: str) -> Image.Image:
    """Return a photograph as RGB; greyscale ones get three equal channels."""
    pixels = _READERS[name]() if name in _READERS else getattr(data, name)()
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def background(rng: np.random.Generator, split: Split) -> tuple[str, NDArray[np.uint8]]:
    """Cut a random square out of a photograph of `split`.

    It is flipped, and brightness, contrast and white balance are varied: seven photographs would be learnt by
    heart otherwise.

    Returns:
        Name of the photograph, and uint8 `[IMAGE_SIZE, IMAGE_SIZE, 3]`.
    """
    name = PHOTOGRAPHS[split][rng.integers(len(PHOTOGRAPHS[split]))]
    whole = photograph(name)
    side = int(rng.integers(_SIDES[0], min(*whole.size, _SIDES[1])))
    left, top = (int(rng.integers(0, length - side + 1)) for length in whole.size)
    crop = whole.resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    pixels = np.asarray(crop, dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    balance = rng.uniform(0.85, 1.15, size=3).astype(np.float32)
    contrast, brightness = np.float32(rng.uniform(*_CONTRAST)), np.float32(rng.uniform(*_BRIGHTNESS))
    mean = pixels.mean()
    pixels = (pixels - mean) * contrast * balance + mean + brightness
    return name, np.clip(pixels, 0, 255).astype(np.uint8)
