"""One writer at a time.

The lock is an advisory `flock` on a file of the bundle's work directory, so the kernel releases it
when its holder dies. The file is removed on release; whoever then locks a removed file notices it
and starts over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from pargo_export.bundle.paths import WORK_NAME
from pargo_export.errors import BundleError

__all__ = ["BundleLockedError", "WriterLock"]

_LOCK_NAME = "lock"
_MAX_RACES = 100


class BundleLockedError(BundleError):
    """Another process is writing the bundle."""


class WriterLock:
    """The exclusive right to write a bundle.

    Args:
        root: The bundle directory, which must exist when the lock is acquired.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / WORK_NAME
        self._path = self._directory / _LOCK_NAME
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, or fail at once.

        Raises:
            BundleLockedError: Another process, or another transaction of this one, holds it.
            BundleError: The work directory is a symbolic link.
            OSError: The bundle directory cannot be written.
        """
        if self._directory.is_symlink():
            raise BundleError(
                f"bundle {self._root}: {WORK_NAME} is a symbolic link, which is refused; remove the link"
            )
        for _ in range(_MAX_RACES):
            descriptor = self._open()
            if descriptor is None:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(descriptor):
                    self._descriptor = descriptor
                    return
            except BlockingIOError as error:
                raise self._locked_error() from error
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        raise self._locked_error()

    def release(self) -> None:
        """Give the lock back and remove the work directory if nothing is left in it."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # files left here hinder nobody
            self._path.unlink()
            self._directory.rmdir()
        os.close(self._descriptor)
        self._descriptor = None

    def sweep(self) -> None:
        """Remove everything from the work directory but the lock; only the holder of the lock may.

        Raises:
            OSError: Something cannot be removed.
        """
        for entry in self._directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self._path:
                entry.unlink()

    def _open(self) -> int | None:
        """Open the lock file; `None` if the last holder removed its directory just now."""
        with contextlib.suppress(FileExistsError):
            self._directory.mkdir()
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            return None
        except OSError:
            with contextlib.suppress(OSError):
                self._directory.rmdir()
            raise

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _locked_error(self) -> BundleLockedError:
        return BundleLockedError(
            f"bundle {self._root} is being written by another process; wait until it has finished, then try again"
        )
