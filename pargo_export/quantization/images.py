"""From calibration data to the pixels of the bundle's preprocessing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pargo_calibration import DataSource, Duplicate, Item, Unreadable, sample
from pargo_export.errors import CalibrationError, ImageError
from pargo_export.preprocessing import PreprocessSpec, load_image, normalize, preprocess_uint8

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
            return normalize(self.pixels[None].astype(np.uint8, copy=False), spec)
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
                self._leave_out(found.name, found.reason)
            elif isinstance(found, Duplicate):
                self._leave_out(found.name, f"the same content as {found.of}")
            else:
                picture = self._read(found)
                if picture is not None:
                    yield picture

    def _read(self, item: Item) -> Picture | None:
        """Prepare an image; one that cannot be used is listed."""
        try:
            return Picture(item.name, item.sha256, _pixels_of(item, self.spec))
        except ImageError as error:
            self._leave_out(item.name, str(error))
            return None

    def _leave_out(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason.removeprefix(f"{name}: ")))


def _pixels_of(item: Item, spec: PreprocessSpec) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the pixels of an image in the size of the model's input.

    Raises:
        CalibrationError: It came as pixels of another size.
        ImageError: It cannot be read, or has one colour only: its activations are no sample of anything.
    """
    if isinstance(item.content, bytes):
        image = load_image(item.content, name=item.name)
        # Before the picture is fitted: padding may add a second colour.
        _require_contrast(np.asarray(image).reshape(-1, 3))
        return preprocess_uint8([image], spec)[0]
    expected = (3, spec.height, spec.width)
    if item.content.shape != expected:
        raise CalibrationError(
            f"{item.name}: found pixels {item.content.dtype}{list(item.content.shape)}, expected "
            f"{list(expected)}, the input of the model; hand pictures to have them fitted, or other pixels"
        )
    _require_contrast(item.content.reshape(3, -1).T)
    return item.content


def _require_contrast(colors: NDArray[np.generic]) -> None:
    if (colors.min(axis=0) == colors.max(axis=0)).all():
        raise ImageError("every pixel has the same colour")
