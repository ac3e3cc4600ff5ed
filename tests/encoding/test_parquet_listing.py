from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
from pyarrow import parquet

from pargo_calibration.errors import CalibrationDataError
from pargo_export.encoding.parquet_listing import open_parquet
from pargo_export.errors import InputError


def list_images(path, id_column="key", image_column="photo", carry=None):
    """List the Parquet files at `path`."""
    return open_parquet(path, str(path), id_column=id_column, image_column=image_column, carry=carry)


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (0, 1), (2, 3), (2, 8), (5, 10), (7, 11), (10, 11)])
def test_any_stretch(table, pictures, start, stop):
    """Rows of any stretch, across row groups and files, each with its own image."""
    found = list(list_images(table).rows(start, stop))
    ids = [*(str(index) for index in range(7)), *(str(10 + index) for index in range(4))]
    assert [image.id for image in found] == ids[start:stop]
    assert [image.read().content for image in found] == list(pictures.values())[start:stop]


def test_large_row_groups(pictures, tmp_path):
    """A row group of several batches is read from any row on."""
    content = next(iter(pictures.values()))
    parquet.write_table(pa.table({"image": [content] * 100, "id": range(100)}), tmp_path / "a.parquet")
    listing = list_images(tmp_path / "a.parquet", None, None)
    for start, stop in ((0, 100), (31, 33), (40, 41), (64, 100)):
        assert [image.id for image in listing.rows(start, stop)] == [str(n) for n in range(start, stop)]


def test_captions_are_carried(table):
    """By default; other columns when they are named, with their types."""
    listing = list_images(table)
    assert listing.columns() == [("caption", pa.string())]
    listing = list_images(table, carry=("width", "caption"))
    assert listing.columns() == [("width", pa.int16()), ("caption", pa.string())]
    first = next(listing.rows(0, 1)).read()
    assert first.carried == {"width": 60, "caption": "caption of 01.png"} or first.carried["width"] > 40
    assert list_images(table, carry=()).described.carried == ()


def test_names_without_an_id_column(pictures, tmp_path):
    """The column `id` if there is one, else file, row group and row."""
    image = pa.array(list(pictures.values())[:3])
    parquet.write_table(pa.table({"image": image}), tmp_path / "a.parquet", row_group_size=2)
    found = [image.id for image in list_images(tmp_path, None, None).rows(0, 3)]
    assert found == ["a.parquet:0:0", "a.parquet:0:1", "a.parquet:1:0"]
    parquet.write_table(pa.table({"image": image, "id": ["x", "y", "z"]}), tmp_path / "a.parquet")
    assert [image.id for image in list_images(tmp_path, None, None).rows(0, 3)] == ["x", "y", "z"]


def test_paths(photos, pictures):
    """A column of paths, relative to the file; the same column may name the images."""
    parquet.write_table(pa.table({"path": list(pictures)}), photos / "index.parquet")
    listing = list_images(photos / "index.parquet", "path", "path")
    found = {image.id: image.read().content for image in listing.rows(0, 11)}
    assert found == pictures
    with pytest.raises(InputError, match="name the image column"):
        list_images(photos / "index.parquet", "path", None)


def test_a_row_without_an_image(tmp_path, pictures):
    """It fails by itself, when it is read."""
    content = next(iter(pictures.values()))
    parquet.write_table(pa.table({"image": pa.array([content, None])}), tmp_path / "a.parquet")
    first, second = list_images(tmp_path, None, None).rows(0, 2)
    assert first.read().content == content
    with pytest.raises(CalibrationDataError):
        second.read()


def test_it_travels_to_a_worker(table):
    """A pickled listing lists the same."""
    listing = list_images(table)
    copy = pickle.loads(pickle.dumps(listing))
    assert [image.id for image in copy.rows(5, 9)] == [image.id for image in listing.rows(5, 9)]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"id_column": "name"}, "there is no column name; found key, photo, caption, width"),
        ({"image_column": "pixels"}, "there is no column pixels"),
        ({"carry": ("height",)}, "there is no column height"),
        ({"image_column": None}, "name the image column"),
        ({"id_column": "width"}, "found the id .* twice in column 'width'"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit(table, choices, message):
    """They are named, with what there is."""
    if choices.get("id_column") == "width":
        rows = parquet.read_table(table / "1.parquet")
        width = rows.column_names.index("width")
        parquet.write_table(
            rows.set_column(width, "width", pa.array([1] * 4, pa.int16())), table / "1.parquet"
        )
    with pytest.raises(InputError, match=message):
        list_images(table, **choices)


def test_reserved_columns(pictures, tmp_path):
    """A column with the name of one of the output cannot be carried."""
    content = list(pictures.values())[:2]
    parquet.write_table(pa.table({"image": content, "tokens": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="the column tokens cannot be carried"):
        list_images(tmp_path, None, None, ("tokens",))


def test_files_that_differ(table):
    """A carried column has one type in all files."""
    rows = parquet.read_table(table / "1.parquet")
    parquet.write_table(rows.set_column(3, "width", rows["width"].cast(pa.int64())), table / "1.parquet")
    with pytest.raises(InputError, match=r"1\.parquet: found the carried columns .*int64.*write them alike"):
        list_images(table, carry=("width",))


def test_damaged_and_empty_files(table, tmp_path):
    """They are named."""
    (table / "1.parquet").write_bytes((table / "1.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"1\.parquet: found no complete Parquet file"):
        list_images(table)
    empty = tmp_path / "empty.parquet"
    parquet.write_table(pa.table({"image": pa.array([], pa.binary())}), empty)
    with pytest.raises(InputError, match="found no rows"):
        list_images(empty, None, None)
