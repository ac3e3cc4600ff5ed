"""Write photographs to calibrate on: those that scikit-image and scikit-learn ship, whole and in crops.

    python benchmarks/photographs.py FOLDER

Seven motifs are few, and crops of one overlap, so that images kept for evaluation are not independent: enough to see
that everything works and to compare tools on the same data, not to calibrate a model that is to be used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

__all__ = ["photographs"]

_FRACTIONS = (0.85, 0.7, 0.6, 0.5, 0.4)  # of the sides, at each corner


def main() -> None:
    """Write the photographs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, photograph in photographs().items():
        for index, crop in enumerate(_crops(photograph)):
            Image.fromarray(crop).save(folder / f"{name}-{index}.jpg", quality=95)
            count += 1
    print(f"{folder}: {count} pictures")


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Return the photographs, uint8 `[H, W, 3]`."""
    found = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    found["motorcycle"] = data.stereo_motorcycle()[0]
    return found | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def _crops(photograph: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the whole and smaller parts, each showing something else at another scale."""
    yield photograph
    height, width = photograph.shape[:2]
    for fraction in _FRACTIONS:
        rows, columns = int(height * fraction), int(width * fraction)
        for top in (0, height - rows):
            for left in (0, width - columns):
                yield photograph[top : top + rows, left : left + columns]


if __name__ == "__main__":
    main()
