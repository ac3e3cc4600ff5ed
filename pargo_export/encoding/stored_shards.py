"""The two forms of a shard, read: rows in order, or one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pargo_export.encoding.options import TokenFormat
from pargo_export.encoding.records import ShardRecord
from pargo_export.encoding.shard_files import DATA_OFFSET, ROWS, TOKENS
from pargo_export.errors import InputError

__all__ = ["StoredShard", "open_shard"]


class StoredShard(Protocol):
    """One shard with at least one row."""

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Yield name and tokens `[Q, C]` of every row."""

    def ids(self) -> list[str]:
        """Names of all rows."""

    def tokens(self, row: int) -> NDArray[np.generic]:
        """Tokens `[Q, C]` of a row."""

    def carried(self, row: int) -> dict[str, Any]:
        """What was carried along with a row, by column."""


def open_shard(
    path: Path, record: ShardRecord, *, shard_format: TokenFormat, shape: tuple[int, int], dtype: str
) -> StoredShard:
    """Open a shard.

    Args:
        path: Its file.
        record: What was written about it.
        shard_format: Of the file.
        shape: Of the tokens of one image, `[Q, C]`.
        dtype: Of the stored tokens.

    Raises:
        InputError: It has other rows than recorded.
    """
    kind = StoredParquet if shard_format == "parquet" else StoredSafetensors
    return kind(path, record, shape, np.dtype(dtype))


class StoredSafetensors:
    """Rows of a safetensors file, mapped."""

    def __init__(self, path: Path, record: ShardRecord, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        from safetensors import safe_open

        self._path = path
        with safe_open(path, "np") as file:  # checks the header against the file
            rows = file.get_tensor(ROWS)
            found = file.get_slice(TOKENS)
            if tuple(found.get_shape()) != (record.rows, *shape):
                raise InputError(
                    f"{path}: found tokens {found.get_shape()}, expected {[record.rows, *shape]}; encode again"
                )
        self._rows: list[dict[str, Any]] = json.loads(rows.tobytes())
        self._tokens = np.memmap(path, dtype.newbyteorder("<"), "r", DATA_OFFSET, (record.rows, *shape))

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        for row, values in enumerate(self._rows):
            yield values["id"], self._tokens[row]

    def ids(self) -> list[str]:
        """Names of all rows."""
        return [values["id"] for values in self._rows]

    def tokens(self, row: int) -> NDArray[np.generic]:
        """Tokens `[Q, C]` of a row, mapped."""
        return self._tokens[row]

    def carried(self, row: int) -> dict[str, Any]:
        """What was carried along with a row, by column."""
        return {name: value for name, value in self._rows[row].items() if name != "id"}


class StoredParquet:
    """Rows of a Parquet file, a row group at a time; the file is mapped."""

    def __init__(self, path: Path, record: ShardRecord, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(path, memory_map=True)
        self._shape, self._dtype = shape, dtype
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._group: tuple[int, Mapping[str, Any]] = (-1, {})
        if self._file.metadata.num_rows != record.rows:
            raise InputError(
                f"{path}: found {self._file.metadata.num_rows} rows, expected {record.rows}; encode again"
            )

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        for group in range(self._file.num_row_groups):
            columns = self._read(group)
            for name, value in zip(columns["id"].to_pylist(), columns[TOKENS], strict=True):
                yield name, self._as_array(value)

    def ids(self) -> list[str]:
        """Names of all rows; no tokens are read."""
        names: list[str] = self._file.read(columns=["id"])["id"].to_pylist()
        return names

    def tokens(self, row: int) -> NDArray[np.generic]:
        """Tokens `[Q, C]` of a row; its row group is read."""
        group, inside = self._place(row)
        return self._as_array(self._read(group)[TOKENS][inside])

    def carried(self, row: int) -> dict[str, Any]:
        """What was carried along with a row, by column."""
        group, inside = self._place(row)
        names = [
            name for name in self._file.schema_arrow.names if name not in {"id", TOKENS, "shape", "dtype"}
        ]
        found = self._file.read_row_group(group, columns=names).slice(inside, 1).to_pylist()
        return dict(found[0]) if names else {}

    def _place(self, row: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._ends, row, side="right"))
        return group, row - (int(self._ends[group - 1]) if group else 0)

    def _read(self, group: int) -> Mapping[str, Any]:
        """Return names and tokens of a row group; the last one that was read is kept."""
        if self._group[0] != group:
            table = self._file.read_row_group(group, columns=["id", TOKENS]).combine_chunks()
            self._group = (group, {name: table[name] for name in table.column_names})
        return self._group[1]

    def _as_array(self, value: Any) -> NDArray[np.generic]:
        return np.frombuffer(value.as_buffer(), self._dtype.newbyteorder("<")).reshape(self._shape)
