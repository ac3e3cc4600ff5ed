"""From calibration data to the pixels of the bundle's preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pargo_calibration import DataSource, Duplicate, Item, Unreadable, sample

from pargo_export.errors import CalibrationError, ImageError
from pargo_export.preprocessing import PreprocessSpec, normalize, preprocess_uint8

__all__ = ["ImageStream", "Picture"]


@dataclass(frozen=True)
class Picture:
    """One usable image.

    Attributes:
        name: Name in the data, relative.
        sha256: Hash of its content.
        pixels: uint8 `[3, H, W]`, or float32 normalised, as the data have it.
    """

    name: str
    sha256: str
    pixels: NDArray[np.uint8] | NDArray[np.float32]

    def values(self, spec: PreprocessSpec) -> NDArray[np.float32]:
        """Normalised pixels, float32 `[1, 3, H, W]`."""
        if self.pixels.dtype == np.uint8:
            return normalize(self.pixels[None], spec)
        return np.asarray(self.pixels[None], np.float32)


@dataclass
class ImageStream:
    """Usable images of a source, one at a time, in the order that the seed decides.

    Attributes:
        source: The data.
        spec: Preprocessing of the bundle.
        seed: Of the order.
        shard: Part of the data, (index, number of parts).
        skipped: Images left out so far, with the reason.
        num_seen: Entries looked at so far.
    """

    source: DataSource
    spec: PreprocessSpec
    seed: int
    shard: tuple[int, int]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    num_seen: int = 0

    def __iter__(self) -> Iterator[Picture]:
        self.num_seen = 0
        self.skipped.clear()
        for found in sample(self.source, seed=self.seed, shard=self.shard):
            self.num_seen += 1
            if isinstance(found, Unreadable):
                self.skipped.append((found.name, found.reason))
            elif isinstance(found, Duplicate):
                self.skipped.append((found.name, f"the same content as {found.of}"))
            else:
                picture = self._read(found)
                if picture is not None:
                    yield picture

    def _read(self, item: Item) -> Picture | None:
        """Prepare an image; one that cannot be used is listed."""
        if isinstance(item.content, bytes):
            try:
                pixels = preprocess_uint8([item.content], self.spec)[0]
            except ImageError as error:
                self.skipped.append((item.name, str(error)))
                return None
            return self._informative(Picture(item.name, item.sha256, pixels))
        expected = (3, self.spec.height, self.spec.width)
        if item.content.shape != expected:
            raise CalibrationError(
                f"{item.name}: found pixels {item.content.dtype}{list(item.content.shape)}, expected "
                f"{list(expected)}, the input of the model; hand pictures to have them fitted, or other pixels"
            )
        return self._informative(Picture(item.name, item.sha256, item.content))

    def _informative(self, picture: Picture) -> Picture | None:
        """Leave out an image of one colour: its activations are no sample of anything."""
        flat = picture.pixels.reshape(3, -1)
        if not np.isfinite(flat).all():
            self.skipped.append((picture.name, "pixels are NaN or infinite"))
        elif (flat.min(axis=1) == flat.max(axis=1)).all():
            self.skipped.append((picture.name, "every pixel has the same colour"))
        else:
            return picture
        return None
