"""The images of a data set in an order that everybody agrees on, read a stretch at a time.

The readers are those of calibration; Parquet alone is read here, row after row, with the columns to carry along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pargo_calibration import DataSource, Entry, open_source
from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.folder import walk_files
from pargo_calibration.readers.source import is_image_name
from pargo_export.bundle import sha256_file
from pargo_export.encoding.records import EncodedFrom
from pargo_export.errors import InputError

__all__ = ["EntryListing", "FoundImage", "Listing", "ReadImage", "files_of", "fingerprint", "open_entries"]

_CAPTION = "caption"
_WITH_CAPTIONS = ("jsonl", "json", "webdataset")
_OF_ONE_FILE = ("jsonl", "json", "pixels")


@dataclass(frozen=True)
class ReadImage:
    """One image, read but not decoded.

    Attributes:
        content: The encoded image as stored, or pixels `[3, H, W]`: uint8, or float32 already normalised.
        sha256: Hash of the content.
        carried: What is stored beside its tokens, by column.
    """

    content: bytes | NDArray[np.uint8] | NDArray[np.float32]
    sha256: str
    carried: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundImage:
    """One image of a listing.

    Attributes:
        id: Its name, unique in the data set.
        read: Reads it, in any thread; raises `CalibrationDataError` if it cannot.
    """

    id: str
    read: Callable[[], ReadImage]


class Listing(Protocol):
    """The images of a data set; what it is made of can be pickled, so that workers agree with who planned."""

    @property
    def described(self) -> EncodedFrom:
        """What is recorded about it."""

    @property
    def path(self) -> Path:
        """Where it lies, absolute."""

    def columns(self) -> list[tuple[str, Any]]:
        """Name and Arrow type of each carried column; needs PyArrow."""

    def rows(self, start: int, stop: int) -> Iterator[FoundImage]:
        """The images `start` to `stop`.

        Raises:
            InputError: The file that lists them has changed, or is damaged there.
        """


class EntryListing:
    """A listing over a reader of calibration data.

    Attributes:
        described: What is recorded about it.
        path: Where it lies, absolute.
    """

    def __init__(self, source: DataSource, described: EncodedFrom, path: Path) -> None:
        self.described = described
        self.path = path
        self._source = source

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_entries"}

    @cached_property
    def _entries(self) -> Sequence[Entry]:
        return self._source.entries()

    def columns(self) -> list[tuple[str, Any]]:
        """Name and Arrow type of each carried column: a caption is a text."""
        import pyarrow as pa

        return [(name, pa.string()) for name in self.described.carried]

    def rows(self, start: int, stop: int) -> Iterator[FoundImage]:
        """The images `start` to `stop`."""
        for index in range(start, stop):
            entry = self._entries[index]
            yield FoundImage(entry.name, partial(self._read, entry))

    def _read(self, entry: Entry) -> ReadImage:
        item = self._source.load(entry)
        carried = dict.fromkeys(self.described.carried, item.caption)
        return ReadImage(item.content, item.sha256, carried)


def open_entries(
    path: Path, location: str, carry: tuple[str, ...] | None, columns: Mapping[str, str | None]
) -> EntryListing | None:
    """List the images at `path`; `None` if they are in Parquet files.

    Args:
        path: The data, absolute.
        location: How the path was given.
        carry: Columns to carry; `None`: the caption, if the form of the data has one.
        columns: Columns that were named, by what they are for; Parquet alone has columns.

    Raises:
        InputError: There is nothing, nothing known, or there are no such columns.
    """
    try:
        if _is_parquet(path):  # not left to `open_source`, which wants an image column of a usual name
            return None
        source = open_source(path)
        kind = source.kind
        num_images = len(source.entries())
        content_sha256 = fingerprint(path, kind)
    except (CalibrationDataError, OSError) as error:
        raise InputError(f"images to encode: {error}") from error
    named = [f"{name} {column!r}" for name, column in columns.items() if column is not None]
    if named:
        raise InputError(
            f"{location}: found data of the form {kind}, which has no columns, and {', '.join(named)}; leave that out"
        )
    has_captions = (_CAPTION,) if kind in _WITH_CAPTIONS else ()
    carried = has_captions if carry is None else carry
    if not set(carried) <= set(has_captions):
        raise InputError(
            f"{location}: found {', '.join(carried)} to carry along, expected {'caption' if has_captions else 'nothing'}: "
            f"data of the form {kind} have no other columns"
        )
    if not num_images:
        raise InputError(f"{location}: found no images; check the path")
    described = EncodedFrom(
        kind=kind, location=location, num_images=num_images, fingerprint=content_sha256, carried=carried
    )
    return EntryListing(source, described, path)


def _is_parquet(path: Path) -> bool:
    """Whether the data are Parquet files, and nothing else that the readers know."""
    if not path.is_dir():
        return path.is_file() and path.suffix.lower() == ".parquet"
    suffixes = {"image" if is_image_name(name) else Path(name).suffix.lower() for name in walk_files(path)}
    return suffixes & {"image", ".parquet", ".tar"} == {".parquet"}


def files_of(path: Path, kind: str) -> tuple[Path, list[str]]:
    """Return the files of a data set as the readers find them: their folder, and the names in it, sorted."""
    if path.is_file():
        return path.parent, [path.name]
    suffix = {"parquet": ".parquet", "webdataset": ".tar"}.get(kind)
    names = walk_files(path)
    if suffix is None:
        return path, sorted(name for name in names if is_image_name(name))
    return path, sorted(name for name in names if Path(name).suffix.lower() == suffix)


def fingerprint(path: Path, kind: str) -> str:
    """Hash the names and sizes of the files of a data set; of a manifest or an array, its content.

    Raises:
        OSError: A folder cannot be listed, or a file not be read.
    """
    digest = hashlib.sha256(kind.encode())
    if kind in _OF_ONE_FILE:
        digest.update(f"{path.name}\0{sha256_file(path)}".encode())
        return digest.hexdigest()
    root, names = files_of(path, kind)
    for name in names:
        digest.update(f"{name}\0{_size_of(root / name)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link: reported when the image is read
        return -1
