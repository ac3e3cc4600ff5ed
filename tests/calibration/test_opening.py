"""The form of the data follows from the path; what is no data is refused with a way out."""

from __future__ import annotations

import os

import pytest

from pargo_calibration import CalibrationDataError, open_source


def test_refuses_nothing(tmp_path):
    """A path that does not exist, whatever its name; `random` is a path like any other."""
    for name in ("missing", "missing.jpg", "random"):
        with pytest.raises(CalibrationDataError, match=f"{name}: no such file or folder"):
            open_source(tmp_path / name)


def test_refuses_a_folder_without_images(tmp_path):
    """The message lists what would have been found, and how a manifest is opened."""
    (tmp_path / "captions.jsonl").write_text("{}")
    with pytest.raises(CalibrationDataError, match=r"no images.*\.jpeg.*manifest .* by its own path"):
        open_source(tmp_path)


def test_refuses_a_mixture(tmp_path):
    """Which of several forms is meant is not guessed."""
    for name in ("a.jpg", "b.tar", "c.parquet"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CalibrationDataError, match=r"several forms \(image, .parquet, .tar\)"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["video.mp4", "data.csv", "data.tar.gz", "data"])
def test_refuses_other_files(tmp_path, name):
    """The message lists the suffixes that are read."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CalibrationDataError, match=r"expected a folder, an image, or one of \['.json'"):
        open_source(tmp_path / name)


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    """A subfolder without permission is not left out silently."""
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CalibrationDataError, match=r"Permission denied.*; check its permissions"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("photo.JPG", "folder"), ("a.JSONL", "jsonl"), ("a.Tar", "webdataset"), ("a.tar", "webdataset")],
)
def test_the_case_of_a_suffix_does_not_matter(tmp_path, name, kind):
    """Cameras and other systems write suffixes in capitals."""
    path = tmp_path / name
    path.write_bytes(b"")
    assert open_source(str(path)).kind == kind
