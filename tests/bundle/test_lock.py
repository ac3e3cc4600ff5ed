from __future__ import annotations

import fcntl

import pytest

from pargo_export.bundle import BundleLockedError
from pargo_export.bundle.lock import WriterLock


def test_excludes_and_can_be_taken_again(tmp_path):
    """One holder at a time, also within a process; a released lock leaves nothing behind."""
    first, second = WriterLock(tmp_path), WriterLock(tmp_path)
    first.acquire()
    with pytest.raises(BundleLockedError, match=str(tmp_path)):
        second.acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    first.release()  # harmless
    assert list(tmp_path.iterdir()) == []
    second.acquire()
    assert second.held
    second.release()


@pytest.mark.parametrize("third_comes_first", [False, True])
def test_lock_on_a_removed_file_does_not_count(third_comes_first, tmp_path, monkeypatch):
    """If the holder leaves between our opening the lock file and locking it, we hold the lock of a removed file."""
    first, second, third = (WriterLock(tmp_path) for _ in range(3))
    first.acquire()
    flock = fcntl.flock

    def late_flock(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release()
        if third_comes_first:
            third.acquire()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late_flock)
    if third_comes_first:
        with pytest.raises(BundleLockedError):
            second.acquire()
    else:
        second.acquire()
        with pytest.raises(BundleLockedError):
            third.acquire()
    second.release()
    third.release()
    assert list(tmp_path.iterdir()) == []


def test_missing_bundle_is_not_waited_for(tmp_path):
    """Without a bundle directory there is nothing to lock."""
    with pytest.raises(FileNotFoundError):
        WriterLock(tmp_path / "missing").acquire()


def test_sweep_keeps_the_lock(tmp_path):
    """Everything but the lock goes, and links are removed, not followed."""
    (tmp_path / "precious").mkdir()
    lock = WriterLock(tmp_path)
    lock.acquire()
    work = tmp_path / ".transaction"
    (work / "staged/onnx").mkdir(parents=True)
    (work / "staged/onnx/a").write_bytes(b"")
    (work / "link").symlink_to(tmp_path / "precious")
    lock.sweep()
    assert [item.name for item in work.iterdir()] == ["lock"]
    assert (tmp_path / "precious").is_dir()
    lock.release()
