"""The two forms of a shard, written a batch at a time, so that memory does not grow with the shard.

Both have the same bytes for the same rows. What stands beside the tokens of an image is its `id` and what was carried
along.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from pargo_export.encoding.options import TokenFormat
from pargo_export.errors import InputError
from pargo_export.optional import require

__all__ = ["DATA_OFFSET", "ROWS", "TOKENS", "ShardWriter", "check_columns", "require_format", "start_shard"]

TOKENS = "tokens"
ROWS = "rows"
# Where the tokens of a safetensors shard begin: its header is written last, into this room; a page, to be mapped.
DATA_OFFSET = 4096

_ROW_GROUP_BYTES = 16 << 20


class ShardWriter(Protocol):
    """Writes one shard into an open file."""

    def write(
        self, ids: Sequence[str], tokens: NDArray[np.generic], carried: Sequence[Mapping[str, Any]]
    ) -> None:
        """Append rows: B names, tokens `[B, Q, C]` in the stored dtype, and the carried columns of each."""

    def finish(self) -> None:
        """Write what is left; the file is whole then."""

    def abandon(self) -> None:
        """Let go of the file, which is going to be thrown away; while it is still open."""


def require_format(shard_format: TokenFormat) -> None:
    """Find out whether shards of this form can be written and read.

    Raises:
        MissingDependencyError: PyArrow is needed, and not installed.
    """
    if shard_format == "parquet":
        require(
            "pyarrow.parquet",
            extra="calibration",
            purpose="write and read Parquet; --format safetensors does without",
        )


def start_shard(
    file: BinaryIO,
    shard_format: TokenFormat,
    *,
    shape: tuple[int, int],
    dtype: str,
    columns: Sequence[tuple[str, Any]],
    metadata: Mapping[str, str],
) -> ShardWriter:
    """Begin a shard.

    Args:
        file: An empty file that can be sought in.
        shard_format: Of the shard.
        shape: Of the tokens of one image, `[Q, C]`.
        dtype: Of the stored tokens, `"float16"` or `"float32"`.
        columns: Name and Arrow type of each carried column; safetensors takes the values as JSON has them.
        metadata: Written into the file.
    """
    if shard_format == "parquet":
        return _ParquetShard(file, shape, dtype, columns, metadata)
    return _SafetensorsShard(file, shape, dtype, metadata)


def check_columns(columns: Sequence[tuple[str, Any]]) -> None:
    """Refuse to carry what JSON has no form for: in a safetensors shard the columns are JSON.

    Raises:
        InputError: A column is of such a type.
    """
    wrong = [f"{name} ({kind})" for name, kind in columns if not _is_json(kind)]
    if wrong:
        raise InputError(
            f"the column {', '.join(wrong)} has no form in JSON, which safetensors shards keep columns in; choose the format "
            "parquet, or do not carry it along"
        )


def _is_json(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_json(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_dictionary(kind):
        return _is_json(kind.value_type)
    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return types.is_null(kind) or any(check(kind) for check in plain)


class _ParquetShard:
    """Columns `id`, `tokens` (bytes in C order, little-endian), `shape`, `dtype`, and what is carried along."""

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, int],
        dtype: str,
        columns: Sequence[tuple[str, Any]],
        metadata: Mapping[str, str],
    ) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        self._pa = pa
        self._shape, self._dtype = shape, dtype
        row_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        self._schema = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field(TOKENS, pa.binary(row_bytes), nullable=False),
                pa.field("shape", pa.list_(pa.int32(), 2), nullable=False),
                pa.field("dtype", pa.string(), nullable=False),
                *(pa.field(name, kind) for name, kind in columns),
            ],
            metadata=dict(metadata),
        )
        others = [name for name in self._schema.names if name != TOKENS]
        self._writer = ParquetWriter(
            file,
            self._schema,
            # Tokens do not compress, and their smallest and largest value would stand in the footer as a whole.
            use_dictionary=["dtype"],
            compression={TOKENS: "none", **dict.fromkeys(others, "zstd")},
            write_statistics=["id"],
        )
        self._group_rows = max(1, _ROW_GROUP_BYTES // row_bytes)
        self._waiting: list[Any] = []
        self._num_waiting = 0

    def write(
        self, ids: Sequence[str], tokens: NDArray[np.generic], carried: Sequence[Mapping[str, Any]]
    ) -> None:
        """Append rows; a row group is written when it is full."""
        pa = self._pa
        count = len(ids)
        fields = list(self._schema)
        values = [
            pa.array(ids, pa.string()),
            pa.FixedSizeBinaryArray.from_buffers(
                fields[1].type, count, [None, pa.py_buffer(_little_endian(tokens))]
            ),
            pa.array([list(self._shape)] * count, fields[2].type),
            pa.array([self._dtype] * count, pa.string()),
            *(pa.array([row[field.name] for row in carried], field.type) for field in fields[4:]),
        ]
        self._waiting.append(pa.RecordBatch.from_arrays(values, schema=self._schema))
        self._num_waiting += count
        if self._num_waiting >= self._group_rows:
            self._flush()

    def finish(self) -> None:
        """Write the rows that wait, and the footer."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close the writer, which would else write its footer when it is collected."""
        with contextlib.suppress(Exception):  # the disk may be full: the reason is under way already
            self._writer.close()
        self._writer.is_open = False

    def _flush(self) -> None:
        table = self._pa.Table.from_batches(self._waiting, self._schema)
        self._writer.write_table(table, row_group_size=self._group_rows)
        self._waiting, self._num_waiting = [], 0


class _SafetensorsShard:
    """Tensors `tokens` `[rows, Q, C]` and `rows`, uint8: a JSON list with an object for each row."""

    def __init__(
        self, file: BinaryIO, shape: tuple[int, int], dtype: str, metadata: Mapping[str, str]
    ) -> None:
        self._file, self._shape, self._dtype, self._metadata = file, shape, dtype, dict(metadata)
        self._rows: list[dict[str, Any]] = []
        file.write(b"\0" * DATA_OFFSET)

    def write(
        self, ids: Sequence[str], tokens: NDArray[np.generic], carried: Sequence[Mapping[str, Any]]
    ) -> None:
        """Append rows; the tokens go to the file at once."""
        self._rows += [{"id": name, **row} for name, row in zip(ids, carried, strict=True)]
        self._file.write(_little_endian(tokens))

    def finish(self) -> None:
        """Write what stands beside the tokens, then the header, filled up with spaces as the format allows."""
        text = json.dumps(self._rows, ensure_ascii=False, separators=(",", ":")).encode()
        self._file.write(text)
        shape = [len(self._rows), *self._shape]
        end = int(np.prod(shape, dtype=np.int64)) * np.dtype(self._dtype).itemsize
        kind = {"float16": "F16", "float32": "F32"}[self._dtype]
        header = json.dumps(
            {
                "__metadata__": self._metadata,
                TOKENS: {"dtype": kind, "shape": shape, "data_offsets": [0, end]},
                ROWS: {"dtype": "U8", "shape": [len(text)], "data_offsets": [end, end + len(text)]},
            },
            ensure_ascii=True,
        ).encode()
        room = DATA_OFFSET - 8
        if len(header) > room:
            raise InputError(
                f"the header of a shard has {len(header)} bytes, expected at most {room}; shorten the metadata"
            )
        self._file.seek(0)
        self._file.write(room.to_bytes(8, "little") + header.ljust(room))

    def abandon(self) -> None:
        """Forget the rows."""
        self._rows.clear()


def _little_endian(tokens: NDArray[np.generic]) -> memoryview:
    """Return the bytes of an array as both formats store them."""
    stored = np.ascontiguousarray(tokens, tokens.dtype.newbyteorder("<"))
    return stored.data.cast("B") if stored.size else memoryview(b"")
