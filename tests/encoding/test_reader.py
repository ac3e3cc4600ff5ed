from __future__ import annotations

import json

import numpy as np
import pytest

from pargo_export.encoding import open_encoded, reader
from pargo_export.errors import InputError, IntegrityError

FORMS = ("parquet", "safetensors")


@pytest.mark.parametrize("form", FORMS)
def test_one_by_one(encode, table, tokens, tmp_path, form, monkeypatch):
    """Tokens and carried values of any image by its name, with few shards open at a time."""
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 1)
    options = {"id_column": "key", "image_column": "photo", "carry": ("caption", "width")}
    encode(table, tmp_path / "out", format=form, **options)
    ids = [*range(7), *range(10, 14)]
    with open_encoded(tmp_path / "out") as found:
        assert found.ids == [str(number) for number in ids]
        for number, (name, rows) in reversed(list(zip(ids, tokens.items(), strict=True))):
            np.testing.assert_array_equal(found[str(number)], rows)
            carried = found.carried(str(number))
            assert carried["caption"] == f"caption of {name}"
            assert list(carried) == ["caption", "width"]
        assert "3" in found
        assert "03" not in found
        with pytest.raises(KeyError):
            _ = found["03"]


@pytest.mark.parametrize("form", FORMS)
def test_captions_of_webdataset(encode, shards, tmp_path, form):
    """They are carried along by default."""
    encode(shards, tmp_path / "out", format=form)
    with open_encoded(tmp_path / "out") as found:
        assert len(found.ids) == 11
        assert found.carried("0.tar/01") == {"caption": "caption of 01.png"}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_carried(encode, shards, tmp_path, form):
    """An image may stand alone."""
    encode(shards, tmp_path / "out", format=form, carry=())
    assert open_encoded(tmp_path / "out").carried("0.tar/01") == {}


def test_safetensors_are_mapped(encode, photos, tmp_path):
    """Tokens are read from the file when they are looked at, and cannot be changed."""
    encode(photos, tmp_path / "out", format="safetensors")
    rows = open_encoded(tmp_path / "out")["02.png"]
    assert isinstance(rows.base, np.memmap) or isinstance(rows, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 0


def test_verify(encode, photos, tmp_path):
    """A file that was changed is found by its hash."""
    encode(photos, tmp_path / "out")
    found = open_encoded(tmp_path / "out")
    found.verify()
    path = tmp_path / "out" / "part-00002-of-00003.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match=r"part-00002.*expected"):
        found.verify()


def test_missing_and_foreign(encode, photos, tmp_path):
    """No index, a missing shard, a cut one, and an index of a later version are refused."""
    with pytest.raises(InputError, match=r"found no index\.json"):
        open_encoded(tmp_path)
    out = tmp_path / "out"
    encode(photos, out)
    path = out / "part-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"part-00001-of-00003\.parquet: found \d+ bytes, expected \d+"):
        open_encoded(out)
    path.unlink()
    with pytest.raises(InputError, match="it is missing"):
        open_encoded(out)
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**index, "schema_version": "2.0"}))
    with pytest.raises(InputError, match=r"found schema version 2\.0, expected 1\.x"):
        open_encoded(out)
