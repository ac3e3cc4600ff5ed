from __future__ import annotations

import errno
import os
import stat

import pytest

from pargo_export.bundle import atomic_write


def test_writes_bytes_and_writers(tmp_path):
    """Bytes and a writer function give the same file, and nothing else is left."""
    atomic_write(tmp_path / "a", b"content")
    atomic_write(tmp_path / "b", lambda file: file.write(b"content"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"content", "b": b"content"}


def test_mode_follows_umask(tmp_path):
    """The file is readable for whom the umask says, unlike the usual temporary file."""
    previous = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_failing_writer_leaves_the_old_file(tmp_path):
    """An exception half-way through leaves the old content and no temporary file."""
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        atomic_write(path, fail)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file(function, tmp_path, monkeypatch):
    """A disk that is full at fsync or rename leaves the old content and no temporary file."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", b"old")]


def test_file_is_durable_before_it_is_renamed(tmp_path, monkeypatch):
    """The content is fsynced before the rename, and the directory after it."""
    events = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def logged_replace(*args):
        events.append("rename")
        replace(*args)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    atomic_write(tmp_path / "a", b"content")
    assert events == ["file", "rename", "directory"]


def test_directory_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    """Some file systems refuse to fsync a directory; the file is written all the same."""
    fsync = os.fsync

    def picky(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", picky)
    atomic_write(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
