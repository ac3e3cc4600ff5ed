"""Noise instead of photographs: it shows that a pipeline runs, not that it is accurate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.source import CountedEntries, DataSource, Entry, Item, make_item

__all__ = ["random_source"]


class _NoiseSource:
    kind: Literal["random"] = "random"

    def __init__(self, count: int, seed: int, height: int, width: int) -> None:
        self.location = "random"
        self._count = count
        self._seed = seed
        self._shape = (3, height, width)

    def entries(self) -> Sequence[Entry]:
        """One entry per image."""
        return CountedEntries(self._count, lambda index: Entry(f"random:{self._seed}:{index}", (index,)))

    def load(self, entry: Entry) -> Item:
        """Make the pixels of one image; they do not depend on what was made before."""
        generator = np.random.default_rng([self._seed, *entry.place])
        pixels = np.frombuffer(generator.bytes(int(np.prod(self._shape))), np.uint8)
        return make_item(entry.name, pixels.reshape(self._shape))


def random_source(count: int, seed: int, *, height: int = 336, width: int = 336) -> DataSource:
    """Make a source of uniform noise, uint8 `[3, H, W]`; whether that may be used is the caller's decision.

    Raises:
        CalibrationDataError: A number is out of range.
    """
    if min(count, height, width) < 1 or seed < 0:
        raise CalibrationDataError(
            f"found {count} images of {height}x{width} with seed {seed}, expected positive numbers and a seed of 0 or more"
        )
    return _NoiseSource(count, seed, height, width)
