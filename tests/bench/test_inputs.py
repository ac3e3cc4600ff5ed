"""The pictures: which, in what order, and that they can be told apart."""

from __future__ import annotations

import io
import shutil

import pytest
from PIL import Image

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bench.inputs import load_pictures
from pargo_export.errors import ImageError, InputError


def test_the_default():
    """The photograph and variations of it, all different, as JPEG and PNG, the same every time."""
    found = load_pictures()
    assert found == load_pictures()
    assert found.contents[0] == PHOTOGRAPH.read_bytes()
    assert len(set(found.contents)) == found.facts.num_pictures == len(found.facts.names) == 8
    images = [Image.open(io.BytesIO(content)) for content in found.contents]
    assert [image.format for image in images] == ["JPEG"] * 6 + ["PNG"] * 2
    assert len({image.size for image in images}) == 8
    assert images[-1].size < images[0].size


def test_files_and_folders(tmp_path):
    """Files as they are named, folders sorted; the hash depends on contents and order."""
    for name in ("b.png", "a.png"):
        Image.new("RGB", (1000, 500), "red" if name == "a.png" else "blue").save(tmp_path / name)
    found = load_pictures([PHOTOGRAPH, tmp_path])
    assert found.facts.names == (PHOTOGRAPH.name, "a.png", "b.png")
    assert found.facts.median_megapixels == 0.5
    other = load_pictures([tmp_path, PHOTOGRAPH])
    assert other.facts.sha256 != found.facts.sha256
    assert load_pictures([PHOTOGRAPH, tmp_path / "a.png", tmp_path / "b.png"]) == found


def test_what_cannot_be_measured(tmp_path):
    """A file that is missing or no picture is named before anything is loaded; so is an empty folder."""
    with pytest.raises(ImageError, match=r"missing\.jpg: cannot be read"):
        load_pictures([tmp_path / "missing.jpg"])
    with pytest.raises(InputError, match="found no pictures"):
        load_pictures([tmp_path])
    shutil.copy(__file__, tmp_path / "code.jpg")
    with pytest.raises(ImageError, match=r"code\.jpg"):
        load_pictures([tmp_path])
