"""Parquet files in the form of Hugging Face datasets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.records import CAPTION_KEYS, IMAGE_KEYS, caption_of, read_image
from pargo_calibration.readers.source import CountedEntries, Entry, Item, make_item

__all__ = ["ParquetSource"]

# Rows decoded at a time on the way to the wanted one.
_BATCH_ROWS = 16

# Arrow's own errors are subclasses of these.
_READ_ERRORS = (OSError, ValueError, RuntimeError)


class ParquetSource:
    """Rows with an image column: a struct of bytes and path, plain bytes, or a path.

    The index is the number of rows of each row group. A row is reached through its own group only, a few
    rows at a time, so memory does not grow with the file; small row groups make it fast.
    """

    kind: Literal["parquet"] = "parquet"

    def __init__(self, root: Path, names: Sequence[str], location: str) -> None:
        self.location = location
        self._root = root
        self._groups: list[tuple[str, int]] = []
        rows: list[int] = []
        for name in sorted(names):
            with self._open(name) as file:
                _check_columns(file.schema_arrow.names, name)
                for group in range(file.metadata.num_row_groups):
                    self._groups.append((name, group))
                    rows.append(file.metadata.row_group(group).num_rows)
        self._ends = list(accumulate(rows))
        self._rows = rows

    def entries(self) -> Sequence[Entry]:
        """One entry per row, files sorted by path."""
        return CountedEntries(self._ends[-1] if self._ends else 0, self._entry)

    def load(self, entry: Entry) -> Item:
        """Read one row.

        Raises:
            CalibrationDataError: The row has no image, or the file is damaged there.
        """
        index, row = entry.place
        name, group = self._groups[index]
        record = self._read_row(name, group, row)
        root = (self._root / name).parent
        return make_item(entry.name, read_image(record, root, entry.name), caption_of(record))

    def _entry(self, index: int) -> Entry:
        group = bisect_right(self._ends, index)
        row = index - (self._ends[group] - self._rows[group])
        name, number = self._groups[group]
        return Entry(f"{name}:{number}:{row}", (group, row))

    def _read_row(self, name: str, group: int, row: int) -> Mapping[str, Any]:
        try:
            with self._open(name) as file:
                columns = [key for key in file.schema_arrow.names if key in (*IMAGE_KEYS, *CAPTION_KEYS)]
                for batch in file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    if row < batch.num_rows:
                        record: Mapping[str, Any] = batch.slice(row, 1).to_pylist()[0]
                        return record
                    row -= batch.num_rows
        except _READ_ERRORS as error:
            raise CalibrationDataError(
                f"{name}: row group {group} cannot be read ({error}); copy or download the file again"
            ) from error
        raise CalibrationDataError(f"{name}: row group {group} ends early; copy or download the file again")

    def _open(self, name: str) -> Any:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise CalibrationDataError(
                "Parquet files need the package pyarrow, which is not installed; "
                "pip install 'pargo-export[calibration]'"
            ) from error
        try:
            return ParquetFile(self._root / name, pre_buffer=False)
        except _READ_ERRORS as error:
            raise CalibrationDataError(
                f"{name}: found no complete Parquet file ({error}); copy or download it again"
            ) from error


def _check_columns(found: Sequence[str], name: str) -> None:
    if not set(found) & set(IMAGE_KEYS):
        raise CalibrationDataError(
            f"{name}: found the columns {sorted(found)}, expected an image column under one of {list(IMAGE_KEYS)}"
        )
