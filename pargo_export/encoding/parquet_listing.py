"""Images in Parquet files, read in the order of the rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from pargo_calibration.readers.records import CAPTION_KEYS, IMAGE_KEYS, read_image
from pargo_calibration.readers.source import make_item
from pargo_export.encoding.listing import FoundImage, ReadImage, files_of, fingerprint
from pargo_export.encoding.records import EncodedFrom
from pargo_export.errors import InputError
from pargo_export.optional import require

__all__ = ["RESERVED_COLUMNS", "ParquetListing", "open_parquet"]

RESERVED_COLUMNS = ("id", "tokens", "shape", "dtype")

_ID = "id"
# Rows decoded at a time: a few megabytes of photographs.
_BATCH_ROWS = 32
# Arrow's own errors are subclasses of these.
_READ_ERRORS = (OSError, ValueError, RuntimeError)


class ParquetListing:
    """Rows of Parquet files, files sorted by path; each stretch is read once, from its own row groups.

    Args:
        described: What is recorded about it.
        path: The file, or the folder of files, absolute.
        groups: File, number and rows of each row group, in order.
        root: The folder that the names of the files are relative to.
        types: Arrow type of each carried column.

    Attributes:
        described: What is recorded about it.
        path: Where it lies, absolute.
    """

    def __init__(
        self,
        described: EncodedFrom,
        path: Path,
        root: Path,
        groups: list[tuple[str, int, int]],
        types: Mapping[str, Any],
    ) -> None:
        self.described = described
        self.path = path
        self._root = root
        self._groups = groups
        self._ends = list(accumulate(rows for _, _, rows in groups))
        self._types = dict(types)

    def columns(self) -> list[tuple[str, Any]]:
        """Name and Arrow type of each carried column."""
        return list(self._types.items())

    def rows(self, start: int, stop: int) -> Iterator[FoundImage]:
        """The images `start` to `stop`.

        Raises:
            InputError: A file is damaged there, or has changed.
        """
        group = bisect_right(self._ends, start)
        while start < stop:
            name, number, num_rows = self._groups[group]
            first = start - (self._ends[group] - num_rows)
            last = min(num_rows, first + stop - start)
            count = 0
            for found in self._rows_of(name, number, first, last):
                count += 1
                yield found
            if count != last - first:
                raise InputError(f"{name}: row group {number} ends early; copy or download the file again")
            start += count
            group += 1

    def _rows_of(self, name: str, number: int, first: int, last: int) -> Iterator[FoundImage]:
        """Yield the rows `first` to `last` of a row group."""
        id_column = self.described.id_column
        folder = (self._root / name).parent
        row = 0
        with _open(self._root, name) as file:
            columns = self._wanted(file.schema_arrow.names)
            for batch in _batches(file, name, number, columns):
                begin, row = row, row + batch.num_rows
                if row <= first:
                    continue
                skipped = max(first - begin, 0)
                records = batch.slice(skipped, min(row, last) - begin - skipped).to_pylist()
                for index, record in enumerate(records, start=begin + skipped):
                    found = f"{name}:{number}:{index}" if id_column is None else str(record[id_column])
                    yield FoundImage(found, partial(self._read, record, folder, found))
                if row >= last:
                    return

    def _wanted(self, present: list[str]) -> list[str]:
        """Return the columns to read, in the order of the file."""
        image = self.described.image_column
        wanted = {self.described.id_column, *self.described.carried}
        wanted |= set(IMAGE_KEYS) if image is None else {image}
        return [name for name in present if name in wanted]

    def _read(self, record: Mapping[str, Any], folder: Path, name: str) -> ReadImage:
        column = self.described.image_column
        images = record if column is None else {"image": record[column]}
        if column is None and self.described.id_column in IMAGE_KEYS:  # a path that only names the image
            images = {key: value for key, value in record.items() if key != self.described.id_column}
        item = make_item(name, read_image(images, folder, name))
        return ReadImage(item.content, item.sha256, {key: record[key] for key in self.described.carried})


def open_parquet(
    path: Path,
    location: str,
    *,
    id_column: str | None,
    image_column: str | None,
    carry: tuple[str, ...] | None,
) -> ParquetListing:
    """List the images of one Parquet file, or of a folder of them.

    Args:
        path: The file or folder, absolute.
        location: How the path was given.
        id_column: The column of names; `None`: `id` if there is one, else the place of the row.
        image_column: The column of images; `None`: one of the usual names.
        carry: Columns to carry along; `None`: the usual names of captions, of those that there are.

    Raises:
        InputError: A file is damaged, a column is missing or differs between the files, or two images have one name.
        MissingDependencyError: PyArrow is not installed.
    """
    require("pyarrow.parquet", extra="calibration", purpose="read Parquet files")
    root, names = files_of(path, "parquet")
    groups: list[tuple[str, int, int]] = []
    types: dict[str, Any] | None = None
    for name in names:
        with _open(root, name) as file:
            found = {field.name: field.type for field in file.schema_arrow}
            if types is None:
                id_column = _ID if id_column is None and _ID in found else id_column
                carry = tuple(key for key in CAPTION_KEYS if key in found) if carry is None else carry
            _check_columns(name, found, id_column, image_column, carry or ())
            own = {key: found[key] for key in carry or ()}
            if types not in (None, own):
                raise InputError(
                    f"{name}: found the carried columns {own}, in {names[0]} {types}; write them alike"
                )
            types = own
            sizes = [
                file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)
            ]
            groups += [(name, number, rows) for number, rows in enumerate(sizes) if rows]
    if not groups:
        raise InputError(f"{location}: found no rows in {len(names)} Parquet files; check the path")
    if id_column is not None:
        _check_ids(root, names, id_column)
    described = EncodedFrom(
        kind="parquet",
        location=location,
        num_images=sum(rows for _, _, rows in groups),
        fingerprint=fingerprint(path, "parquet"),
        id_column=id_column,
        image_column=image_column,
        carried=carry or (),
    )
    return ParquetListing(described, path, root, groups, types or {})


def _check_columns(
    name: str,
    found: Mapping[str, Any],
    id_column: str | None,
    image_column: str | None,
    carry: tuple[str, ...],
) -> None:
    """Refuse columns that are not there, or that the output has for itself."""
    wanted = [column for column in (id_column, image_column, *carry) if column is not None]
    missing = [column for column in wanted if column not in found]
    if missing:
        raise InputError(f"{name}: there is no column {', '.join(missing)}; found {', '.join(found)}")
    taken = [column for column in carry if column in RESERVED_COLUMNS]
    if taken:
        raise InputError(
            f"{name}: the column {', '.join(taken)} cannot be carried, the output has one of that name; rename it, or "
            "name it as the id column"
        )
    if image_column is None and not (set(found) - {id_column}) & set(IMAGE_KEYS):
        raise InputError(
            f"{name}: found the columns {', '.join(found)}, expected an image under one of {', '.join(IMAGE_KEYS)}; name "
            "the image column"
        )


def _check_ids(root: Path, names: list[str], column: str) -> None:
    """Refuse a column of names where two are alike, or one is missing; it alone is read."""
    seen: set[str] = set()
    for name in names:
        with _open(root, name) as file:
            for number in range(file.metadata.num_row_groups):
                for batch in _batches(file, name, number, [column]):
                    for value in batch.column(0).to_pylist():
                        if value is None or str(value) in seen:
                            problem = "an empty id" if value is None else f"the id {value!r} twice"
                            raise InputError(
                                f"{name}: found {problem} in column {column!r}, expected another one for each image; name "
                                "another id column"
                            )
                        seen.add(str(value))


def _batches(file: Any, name: str, number: int, columns: list[str]) -> Iterator[Any]:
    try:
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[number], columns=columns, use_threads=False)
    except _READ_ERRORS as error:
        raise _damaged(name, number, error) from error


def _damaged(name: str, number: int, error: Exception) -> InputError:
    return InputError(f"{name}: row group {number} cannot be read ({error}); copy or download the file again")


def _open(root: Path, name: str) -> Any:
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(root / name, pre_buffer=False)
    except _READ_ERRORS as error:
        raise InputError(
            f"{name}: found no complete Parquet file ({error}); copy or download it again"
        ) from error
