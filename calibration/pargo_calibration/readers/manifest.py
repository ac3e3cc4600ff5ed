"""Image-caption manifests: JSON Lines, and JSON."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.records import caption_of, read_image
from pargo_calibration.readers.source import CountedEntries, Entry, Item, make_item, read_range

__all__ = ["JsonLinesSource", "JsonSource"]

# Where an object keeps its records; COCO's images come before its annotations, which name no file.
_LIST_KEYS = ("data", "samples", "items", "records", "images", "annotations", "train")


class JsonLinesSource:
    """One record per line; the index holds where each line begins."""

    kind: Literal["jsonl"] = "jsonl"

    def __init__(self, path: Path, location: str) -> None:
        self.location = location
        self._path = path
        # Four bytes for the line number would do, eight for the rest are needed: files of many gigabytes.
        self._numbers, self._offsets, self._sizes = array("q"), array("q"), array("q")
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._numbers.append(number)
                    self._offsets.append(offset)
                    self._sizes.append(len(line))
                offset += len(line)

    def entries(self) -> Sequence[Entry]:
        """One entry per line that is not blank, in the order of the file."""
        return CountedEntries(len(self._numbers), self._entry)

    def load(self, entry: Entry) -> Item:
        """Read one line and its image.

        Raises:
            CalibrationDataError: The line is no JSON object with an image, or the image cannot be read.
        """
        offset, size = entry.place
        with self._path.open("rb") as file:
            line = read_range(file, offset, size, entry.name)
        record = _parse(line, entry.name)
        return make_item(entry.name, read_image(record, self._path.parent, entry.name), caption_of(record))

    def _entry(self, index: int) -> Entry:
        name = f"{self._path.name}:{self._numbers[index]}"
        return Entry(name, (self._offsets[index], self._sizes[index]))


class JsonSource:
    """A list of records, kept in memory: for millions of them use JSON Lines."""

    kind: Literal["json"] = "json"

    def __init__(self, path: Path, location: str) -> None:
        self.location = location
        self._path = path
        self._records = _list_in(_parse(path.read_bytes(), path.name), path.name)

    def entries(self) -> Sequence[Entry]:
        """One entry per record, in the order of the file."""
        return CountedEntries(
            len(self._records), lambda index: Entry(f"{self._path.name}:[{index}]", (index,))
        )

    def load(self, entry: Entry) -> Item:
        """Read the image of one record.

        Raises:
            CalibrationDataError: The record has no image, or it cannot be read.
        """
        record = self._records[entry.place[0]]
        return make_item(entry.name, read_image(record, self._path.parent, entry.name), caption_of(record))


def _parse(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CalibrationDataError(f"{name}: no JSON ({error}); correct it") from error


def _list_in(values: Any, name: str) -> list[Any]:
    if isinstance(values, list):
        return values
    if isinstance(values, dict):
        for key in _LIST_KEYS:
            if isinstance(values.get(key), list):
                found: list[Any] = values[key]
                return found
    raise CalibrationDataError(
        f"{name}: found {type(values).__name__}, expected a list of records, or an object with one under one of "
        f"{list(_LIST_KEYS)}"
    )
