"""Where the kernels that TensorRT for RTX compiles are kept, and what is read of it."""

from __future__ import annotations

import logging

import pytest
from runtime.tensorrt.engines import DEVICE


@pytest.fixture
def folder(tmp_path):
    """Where the caches of the tests lie."""
    return tmp_path / "cache" / "pargo-export" / "tensorrt-rtx"


@pytest.fixture
def open_rtx(open_engine, monkeypatch):
    """Return a function that opens an engine for RTX and returns its file and what of it was read."""
    from runtime.tensorrt import fake_tensorrt

    read = []
    deserialize = fake_tensorrt.Cache.deserialize

    def spy(self, content):
        accepted = deserialize(self, content)
        read.append((content, accepted))
        return accepted

    monkeypatch.setattr(fake_tensorrt.Cache, "deserialize", spy)

    def open_rtx():
        read.clear()
        open_engine(flavor="rtx")
        return list(read)

    return open_rtx


def test_kernels_are_compiled_once(open_rtx, folder):
    """What the first opening compiled is read by the second; only this user may look into the folder."""
    assert open_rtx() == []
    (path,) = folder.iterdir()
    assert path.name.endswith(f"-1.7.1.116-sm{DEVICE.compute_capability.replace('.', '')}.cache")
    assert path.read_bytes() == b"kernels 1 2 4"
    assert folder.stat().st_mode & 0o077 == 0
    before = path.stat().st_mtime_ns
    assert open_rtx() == [(b"kernels 1 2 4", True)]
    assert path.stat().st_mtime_ns == before, "written only if there is something new"


def test_kernels_of_another_machine_are_compiled_anew(open_rtx, folder, caplog):
    """What TensorRT refuses is replaced."""
    open_rtx()
    (path,) = folder.iterdir()
    path.write_bytes(b"of another driver")
    with caplog.at_level(logging.INFO, "pargo_export.runtime"):
        assert open_rtx() == [(b"of another driver", False)]
    assert "compiled anew" in caplog.text
    assert path.read_bytes() == b"kernels 1 2 4"


def test_file_that_others_can_write_is_not_read(open_rtx, folder, caplog):
    """It is machine code without a hash: it must be from this user alone."""
    open_rtx()
    (path,) = folder.iterdir()
    path.chmod(0o666)
    assert open_rtx() == []
    assert "can be written by others: it is not read" in caplog.text


def test_file_of_another_user_is_not_read(open_rtx, monkeypatch, caplog):
    """As root may find one in a shared cache directory."""
    open_rtx()
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    assert open_rtx() == []
    assert "belongs to another user" in caplog.text


def test_cache_that_cannot_be_kept_is_logged(open_rtx, folder, caplog):
    """The engine runs without it."""
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    assert open_rtx() == []
    assert "compiled kernels cannot be kept for the next start" in caplog.text


def test_relative_cache_directory_is_ignored(open_rtx, tmp_path, monkeypatch):
    """As the XDG specification wants it; the home directory is taken then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.environ", {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": "here"})
    open_rtx()
    assert not (tmp_path / "here").exists()
    assert len(list((tmp_path / "home/.cache/pargo-export/tensorrt-rtx").iterdir())) == 1
