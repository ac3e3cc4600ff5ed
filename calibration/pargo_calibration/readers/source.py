"""What every reader offers: a light index, and one item at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.errors import CalibrationDataError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_IMAGE_BYTES",
    "CountedEntries",
    "DataSource",
    "Entry",
    "Item",
    "SourceKind",
    "is_image_name",
    "make_item",
    "read_image_file",
    "read_range",
]

SourceKind: TypeAlias = Literal["folder", "jsonl", "json", "parquet", "webdataset", "pixels", "random"]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"},
)

# No photograph is larger; a mislabelled archive or a damaged length field is.
MAX_IMAGE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One image in the index of a source.

    Attributes:
        name: Stable and relative to the source: the same on every machine.
        place: Where the source finds it; what the numbers mean is the source's own business.
    """

    name: str
    place: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One image, read.

    Attributes:
        name: Name of its entry.
        content: The encoded image as stored, or pixels `[3, H, W]`: uint8, or float32 already normalised.
        caption: Text that came with it.
        sha256: Hash of the content alone: two copies under different names have the same.
    """

    name: str
    content: bytes | NDArray[np.uint8] | NDArray[np.float32]
    caption: str | None
    sha256: str


class DataSource(Protocol):
    """Calibration images of one form."""

    @property
    def kind(self) -> SourceKind:
        """Form of the data."""

    @property
    def location(self) -> str:
        """Where it lies, as given."""

    def entries(self) -> Sequence[Entry]:
        """The index, in an order that does not depend on the machine or the file system."""

    def load(self, entry: Entry) -> Item:
        """Read one image of the index; it is not decoded.

        Raises:
            CalibrationDataError: It is missing, damaged or not an image of this source's form.
        """


class CountedEntries(Sequence[Entry]):
    """Entries made when asked for, so that a million of them need no memory."""

    def __init__(self, count: int, make: Callable[[int], Entry]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        found = range(self._count)[index]
        return self._make(found) if isinstance(found, int) else [self._make(number) for number in found]

    def __iter__(self) -> Iterator[Entry]:
        return map(self._make, range(self._count))


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image; case does not matter."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def make_item(name: str, content: bytes | NDArray[np.generic], caption: str | None = None) -> Item:
    """Hash the content; of pixels, the type and the shape count too.

    Raises:
        CalibrationDataError: The content is empty or not finite.
    """
    if isinstance(content, bytes):
        if not content:
            raise CalibrationDataError(f"{name}: found no bytes, expected an image; remove the entry")
        return Item(name, content, caption, hashlib.sha256(content).hexdigest())
    pixels = np.ascontiguousarray(content)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise CalibrationDataError(
            f"{name}: found NaN or infinite pixels, expected numbers; make the array again"
        )
    digest = hashlib.sha256(f"{pixels.dtype.name}{list(pixels.shape)}".encode())
    digest.update(pixels.data)
    return Item(name, pixels, caption, digest.hexdigest())


def read_image_file(path: Path, name: str) -> bytes:
    """Read a whole regular file.

    Raises:
        CalibrationDataError: It is missing, unreadable, too large, or a device or pipe.
    """
    try:
        # Opening a pipe would wait for ever, reading a device never end.
        if not path.is_file():
            found = "something that is no regular file" if path.exists() else "no such file"
            raise CalibrationDataError(f"{name}: found {found}, expected an image; check the path")
        with path.open("rb") as file:
            return read_range(file, 0, path.stat().st_size, name)
    except OSError as error:
        # Not the error's own text: it names the whole path, which is another on every machine.
        reason = error.strerror or type(error).__name__
        raise CalibrationDataError(
            f"{name}: cannot be read ({reason}); check the path and its permissions"
        ) from error


def read_range(file: IO[bytes], offset: int, size: int, name: str) -> bytes:
    """Read `size` bytes at `offset`.

    Raises:
        CalibrationDataError: The file ends before, or the range is larger than any photograph.
    """
    if size > MAX_IMAGE_BYTES:
        raise CalibrationDataError(
            f"{name}: found {size} bytes, expected an image of at most {MAX_IMAGE_BYTES}; remove the entry"
        )
    file.seek(offset)
    content = file.read(size)
    if len(content) != size:
        raise CalibrationDataError(
            f"{name}: found {len(content)} of {size} bytes, the file is cut; copy or download it again"
        )
    return content
