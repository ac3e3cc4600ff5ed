from __future__ import annotations

import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from pargo_calibration.errors import CalibrationDataError
from pargo_export.encoding.listing import open_entries
from pargo_export.errors import InputError


def list_images(path, carry=None, **columns):
    """List what is at `path`."""
    return open_entries(path, str(path), carry, columns)


def test_a_folder(photos, pictures):
    """Images by their names, in order; any stretch of them, read when asked for."""
    listing = list_images(photos)
    assert (listing.described.kind, listing.described.num_images) == ("folder", 11)
    found = list(listing.rows(3, 6))
    names = list(pictures)[3:6]
    assert [image.id for image in found] == names
    assert [image.read().content for image in found] == [pictures[name] for name in names]


def test_it_travels_to_a_worker(photos, pictures):
    """A pickled listing lists the same, whatever has come to the folder since."""
    listing = list_images(photos)
    list(listing.rows(0, 1))
    (photos / "00-new.png").write_bytes(pictures["01.png"])
    copy = pickle.loads(pickle.dumps(listing))
    assert [image.id for image in copy.rows(0, 11)] == list(pictures)


def test_webdataset(shards, pictures):
    """Samples of all archives, with their captions; they may be left out."""
    listing = list_images(shards)
    assert (listing.described.kind, listing.described.carried) == ("webdataset", ("caption",))
    found = list(listing.rows(0, 11))
    assert found[0].id == "0.tar/01"
    first = found[0].read()
    assert first.carried == {"caption": "caption of 01.png"}
    assert first.content == pictures["01.png"]
    assert next(list_images(shards, ()).rows(0, 1)).read().carried == {}


@pytest.mark.usefixtures("photos")
def test_a_manifest(tmp_path):
    """One image a line, named by the line."""
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(json.dumps({"image": "photos/01.png", "caption": f"{n}"}) for n in range(3)))
    found = [(image.id, image.read().carried["caption"]) for image in list_images(path).rows(1, 3)]
    assert found == [("captions.jsonl:2", "1"), ("captions.jsonl:3", "2")]


def test_pixels(tmp_path):
    """Prepared pixels are handed on as they are."""
    values = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    np.savez(tmp_path / "pixels.npz", pixel_values=values)
    found = [image.read().content for image in list_images(tmp_path / "pixels.npz").rows(0, 2)]
    np.testing.assert_array_equal(found, values)


def test_what_cannot_be_read_is_told_when_it_is_read(photos):
    """A broken link is an image like others until then."""
    (photos / "00-gone.png").symlink_to("nowhere.png")
    first = next(list_images(photos).rows(0, 1))
    with pytest.raises(CalibrationDataError, match=r"00-gone\.png"):
        first.read()


def test_the_fingerprint(photos, shards, tmp_path):
    """It does not depend on the place, the time stamps or other files, but on names and sizes."""
    found = list_images(photos).described.fingerprint
    (photos / "notes.txt").write_text("no image")
    os.utime(photos / "01.png", (1, 1))
    moved = shutil.copytree(photos, tmp_path / "moved")
    assert list_images(moved).described.fingerprint == found
    (moved / "01.png").rename(moved / "00.png")
    assert list_images(moved).described.fingerprint != found
    before = list_images(shards).described.fingerprint
    with (shards / "1.tar").open("ab") as file:
        file.write(b"\0" * 512)
    assert list_images(shards).described.fingerprint != before


def test_the_fingerprint_of_a_manifest(tmp_path):
    """It is that of its content."""
    Image.new("RGB", (4, 4)).save(buffer := io.BytesIO(), "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    path = tmp_path / "list.json"
    path.write_text('[{"image": "a.png", "caption": "x"}]')
    before = list_images(path).described.fingerprint
    path.write_text('[{"image": "a.png", "caption": "y"}]')
    assert list_images(path).described.fingerprint != before


def test_parquet_is_for_somebody_else(table):
    """It has a listing of its own."""
    assert list_images(table) is None


@pytest.mark.parametrize(
    ("carry", "columns", "message"),
    [
        (("width",), {}, "found width to carry along, expected nothing"),
        (None, {"id column": "key"}, "has no columns, and id column 'key'"),
    ],
)
def test_columns_of_a_folder(photos, carry, columns, message):
    """There are none."""
    with pytest.raises(InputError, match=message):
        list_images(photos, carry, **columns)


def test_nothing_there(tmp_path):
    """A missing path and an empty folder are errors that say so."""
    with pytest.raises(InputError, match="no such file or folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found no images"):
        list_images(tmp_path)
