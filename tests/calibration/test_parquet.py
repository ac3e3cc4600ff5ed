"""Parquet files in the forms that Hugging Face datasets write."""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pargo_calibration import CalibrationDataError, open_source


def write(path, row_group_size=2, **columns):
    """Write a table with small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def contents(source):
    """Contents of all entries."""
    return [source.load(entry).content for entry in source.entries()]


def test_struct_of_bytes_and_path(tmp_path, photos):
    """The form of `datasets.Image`, over several row groups; the caption comes along."""
    images = [{"bytes": photo, "path": f"{number}.jpg"} for number, photo in enumerate(photos)]
    path = write(tmp_path / "train.parquet", image=images, caption=list("abcde"), label=[1] * 5)
    source = open_source(path)
    assert source.kind == "parquet"
    assert contents(source) == photos
    assert [entry.name for entry in source.entries()] == [
        f"train.parquet:{group}:{row}" for group, row in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    ]
    assert [source.load(entry).caption for entry in source.entries()] == list("abcde")


def test_rows_beyond_the_first_batch_are_reached(tmp_path, photos):
    """A row group larger than what is decoded at a time."""
    rows = [photos[0] + bytes([number]) for number in range(50)]
    assert contents(open_source(write(tmp_path / "a.parquet", 50, jpg=rows))) == rows


def test_bytes_paths_and_nulls(tmp_path, photos):
    """Plain bytes, or a path relative to the file; a row without an image says so."""
    (tmp_path / "x.jpg").write_bytes(photos[3])
    assert contents(open_source(write(tmp_path / "b.parquet", image_bytes=photos))) == photos
    source = open_source(write(tmp_path / "c.parquet", image=["x.jpg", None]))
    assert source.load(source.entries()[0]).content == photos[3]
    with pytest.raises(CalibrationDataError, match=r"c.parquet:0:1: found the keys \['image'\]"):
        source.load(source.entries()[1])
    source = open_source(write(tmp_path / "d.parquet", image=[{"bytes": None, "path": "../secret.jpg"}]))
    with pytest.raises(CalibrationDataError, match="leaves the folder"):
        source.load(source.entries()[0])


def test_a_folder_of_files(tmp_path, photos):
    """All files below it, sorted by path, whatever order they were written in."""
    write(tmp_path / "data/train-1.parquet", image=photos[2:])
    write(tmp_path / "data/train-0.parquet", image=photos[:2])
    source = open_source(tmp_path)
    assert contents(source) == photos
    assert source.entries()[0].name == "data/train-0.parquet:0:0"


def test_an_empty_file_has_no_entries(tmp_path):
    """Nothing in it is nothing to read."""
    path = write(tmp_path / "a.parquet", image=pa.array([], pa.binary()))
    assert list(open_source(path).entries()) == []


def test_refuses_other_columns(tmp_path):
    """The message lists the columns found and those expected."""
    path = write(tmp_path / "a.parquet", picture=["a.jpg"], label=[1])
    with pytest.raises(
        CalibrationDataError, match=r"found the columns \['label', 'picture'\], expected an image"
    ):
        open_source(path)


def test_damaged_files_are_reported(tmp_path, photos):
    """Cut at the end: refused at once. Damaged inside: that row cannot be read, the others can."""
    path = write(tmp_path / "a.parquet", 1, image=photos)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(CalibrationDataError, match=r"a.parquet: found no complete Parquet file"):
        open_source(path)
    path.write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    source = open_source(path)
    with pytest.raises(CalibrationDataError, match=r"a.parquet: row group 0 cannot be read"):
        source.load(source.entries()[0])
    assert source.load(source.entries()[4]).content == photos[4]


def test_says_what_is_missing(tmp_path, photos, monkeypatch):
    """Without pyarrow the message says what to install."""
    path = write(tmp_path / "a.parquet", image=photos)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(CalibrationDataError, match=r"pip install 'pargo-export\[calibration\]'"):
        open_source(path)
