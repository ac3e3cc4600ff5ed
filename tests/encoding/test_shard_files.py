from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import load

from pargo_export.encoding.shard_files import DATA_OFFSET, check_columns, start_shard
from pargo_export.errors import InputError

COLUMNS = [("caption", pa.string()), ("width", pa.int16())]
TOKENS = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float16)
IDS = ["a", "b/ü", "c", "d", "e"]
CARRIED = [{"caption": None if n == 2 else f"number {n}", "width": n} for n in range(5)]


def write(form, parts, dtype="float16"):
    """Return the bytes of a shard that was written in parts."""
    file = io.BytesIO()
    shard = start_shard(file, form, shape=(3, 7), dtype=dtype, columns=COLUMNS, metadata={"output": "x"})
    for part in parts:
        shard.write(IDS[part], TOKENS[part].astype(dtype), CARRIED[part])
    shard.finish()
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_parquet_columns(dtype):
    """Each row says by itself what its bytes are; the types of carried columns stay."""
    found = parquet.read_table(pa.BufferReader(write("parquet", [slice(0, 2), slice(2, 5)], dtype)))
    assert found.column_names == ["id", "tokens", "shape", "dtype", "caption", "width"]
    assert found.schema.field("width").type == pa.int16()
    for index, row in enumerate(found.to_pylist()):
        tokens = np.frombuffer(row["tokens"], row["dtype"]).reshape(row["shape"])
        np.testing.assert_array_equal(tokens, TOKENS[index].astype(dtype))
        assert row["id"] == IDS[index]
        assert {name: row[name] for name in ("caption", "width")} == CARRIED[index]


def test_parquet_footer_does_not_repeat_tokens():
    """There are no statistics of tokens: for a full-size model each would hold megabytes."""
    group = parquet.ParquetFile(pa.BufferReader(write("parquet", [slice(0, 5)]))).metadata.row_group(0)
    assert group.column(0).statistics is not None
    assert group.column(1).statistics is None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_safetensors(dtype):
    """The library reads tokens and, as JSON, what stands beside them; tokens begin at a page."""
    content = write("safetensors", [slice(0, 2), slice(2, 5)], dtype)
    found = load(content)
    np.testing.assert_array_equal(found["tokens"], TOKENS.astype(dtype))
    rows = json.loads(found["rows"].tobytes())
    assert rows == [{"id": name, **values} for name, values in zip(IDS, CARRIED, strict=True)]
    assert content[DATA_OFFSET:].startswith(TOKENS.astype(dtype).tobytes())


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_no_rows(form):
    """A shard without rows is a valid file."""
    content = write(form, [])
    if form == "parquet":
        assert parquet.read_table(pa.BufferReader(content)).num_rows == 0
    else:
        assert load(content)["tokens"].shape == (0, 3, 7)


def test_big_endian_tokens():
    """Bytes are little-endian, whatever the array is."""
    file = io.BytesIO()
    shard = start_shard(file, "safetensors", shape=(3, 7), dtype="float16", columns=(), metadata={})
    shard.write(IDS, TOKENS.astype(">f2"), [{}] * 5)
    shard.finish()
    np.testing.assert_array_equal(load(file.getvalue())["tokens"], TOKENS)


def test_a_header_that_is_too_long():
    """It has a fixed room."""
    shard = start_shard(
        io.BytesIO(), "safetensors", shape=(3, 7), dtype="float16", columns=(), metadata={"a": "x" * 5000}
    )
    with pytest.raises(InputError, match="at most 4088"):
        shard.finish()


def test_columns_that_json_has_no_form_for():
    """Bytes, times and the like cannot be carried into safetensors; nested plain values can."""
    check_columns([*COLUMNS, ("tags", pa.list_(pa.struct([("a", pa.float32())])))])
    with pytest.raises(InputError, match=r"raw \(binary\), when \(list<item: date32\[day\]>\)"):
        check_columns([*COLUMNS, ("raw", pa.binary()), ("when", pa.list_(pa.date32()))])
