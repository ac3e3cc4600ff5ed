"""Write one file so that a reader, or a crash, sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write", "fsync_directory", "fsync_file"]

# Answers for a directory that cannot be fsynced (by this file system, or because it is not readable
# for this user, as the parent of a bundle may be); there is nothing more to do then.
_FSYNC_IMPOSSIBLE = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)


def atomic_write(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `content` beside `path`, make it durable and rename it into place.

    Args:
        path: The file to create or replace; its directory must exist.
        content: The bytes, or a function that writes them to the binary file it is given.

    Raises:
        OSError: The file cannot be written; `path` is as it was before, and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """Make the content of a file durable.

    Raises:
        OSError: The file cannot be opened, or the device could not store it.
    """
    _fsync(path, os.O_RDONLY | os.O_NOFOLLOW)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable, where that is possible.

    Raises:
        OSError: The directory is missing, or the device could not store it.
    """
    try:
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _FSYNC_IMPOSSIBLE:
            raise


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
