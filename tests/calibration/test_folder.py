"""A folder is all its images, in one order, with names that are the same everywhere."""

from __future__ import annotations

import os

import pytest

from pargo_calibration import CalibrationDataError, open_source


def write(root, files):
    """Write files with their folders."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names_of(path):
    """Names of all entries."""
    return [entry.name for entry in open_source(path).entries()]


def test_finds_images_below_it_and_nothing_else(tmp_path):
    """Suffixes in any case; hidden files and folders and other files are left out."""
    wanted = ["B.PNG", "a/b/c.jpeg", "a/z.Jpg", "d.ppm", "e.webp", "f.tiff"]
    other = ["notes.txt", ".hidden.jpg", "a/.cache/x.png", "jpg", "a/y.jpg.txt"]
    write(tmp_path, dict.fromkeys(wanted + other, b"x"))
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names_of(tmp_path) == wanted


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    """Whatever order the folder lists its files in, the index is the same."""
    write(tmp_path, {f"{folder}/{number}.png": b"x" for folder in "ba" for number in (10, 2, 1)})
    expected = ["a/1.png", "a/10.png", "a/2.png", "b/1.png", "b/10.png", "b/2.png"]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.found = iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.found)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    assert names_of(tmp_path) == expected
    monkeypatch.setattr(os, "scandir", Reversed)
    assert names_of(tmp_path) == expected


def test_loads_the_bytes_of_the_file(tmp_path, photos):
    """The content is the file as it is; equal files have equal hashes under different names."""
    write(tmp_path, {"a.jpg": photos[0], "b.jpg": photos[1], "c.jpg": photos[0]})
    source = open_source(tmp_path)
    items = [source.load(entry) for entry in source.entries()]
    assert source.kind == "folder"
    assert source.location == str(tmp_path)
    assert [item.content for item in items] == [photos[0], photos[1], photos[0]]
    assert items[0].sha256 == items[2].sha256 != items[1].sha256
    assert items[0].caption is None


def test_one_image_is_a_folder_of_one(tmp_path, photos):
    """The name is that of the file, without the way to it."""
    write(tmp_path, {"photo.jpg": photos[0], "other.jpg": photos[1]})
    source = open_source(tmp_path / "photo.jpg")
    (entry,) = source.entries()
    assert entry.name == "photo.jpg"
    assert source.load(entry).content == photos[0]


def test_links_are_followed_once(tmp_path, photos):
    """A link to another folder is part of the folder; one that leads back up does no harm."""
    outside = write(tmp_path / "outside", {"x.jpg": photos[0]})
    root = write(tmp_path / "root", {"a/1.jpg": photos[0]})
    (root / "linked").symlink_to(outside)
    (root / "a/up").symlink_to(root)
    (root / "self.jpg").symlink_to("self.jpg")
    assert names_of(root) == ["a/1.jpg", "linked/x.jpg", "self.jpg"]


def test_what_cannot_be_read_is_reported(tmp_path, photos):
    """A file that has gone, a broken link and an empty file each say so, without a path of this machine."""
    write(tmp_path, {"gone.jpg": photos[0], "empty.jpg": b""})
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    source = open_source(tmp_path)
    (tmp_path / "gone.jpg").unlink()
    found = {}
    for entry in source.entries():
        with pytest.raises(CalibrationDataError) as caught:
            source.load(entry)
        found[entry.name] = str(caught.value)
    assert list(found) == ["broken.jpg", "empty.jpg", "gone.jpg", "loop.jpg"]
    assert "no such file" in found["gone.jpg"]
    assert "no such file" in found["broken.jpg"]
    assert "no bytes" in found["empty.jpg"]
    assert not any(str(tmp_path) in message for message in found.values())


def test_too_large_files_are_refused(tmp_path, photos, monkeypatch):
    """What is larger than any photograph is not read into memory."""
    write(tmp_path, {"large.jpg": photos[0]})
    monkeypatch.setattr("pargo_calibration.readers.source.MAX_IMAGE_BYTES", 100)
    source = open_source(tmp_path)
    with pytest.raises(CalibrationDataError, match="expected an image of at most 100"):
        source.load(source.entries()[0])
