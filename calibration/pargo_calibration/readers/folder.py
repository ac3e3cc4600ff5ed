"""A folder of image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pargo_calibration.readers.source import Entry, Item, make_item, read_image_file

__all__ = ["FolderSource", "walk_files"]


class FolderSource:
    """Image files; the index holds their paths relative to the folder."""

    kind: Literal["folder"] = "folder"

    def __init__(self, root: Path, names: Sequence[str], location: str) -> None:
        self.location = location
        self._root = root
        self._names = sorted(names)

    def entries(self) -> Sequence[Entry]:
        """One entry per file, sorted by path."""
        return [Entry(name) for name in self._names]

    def load(self, entry: Entry) -> Item:
        """Read the file.

        Raises:
            CalibrationDataError: It has gone or cannot be read.
        """
        return make_item(entry.name, read_image_file(self._root / entry.name, entry.name))


def walk_files(root: Path) -> Iterator[str]:
    """Relative POSIX paths of all files below `root`, without hidden ones.

    Links to folders are followed, each folder is visited once: a link back up ends there.
    """
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=_raise, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116  os.walk hands out strings
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            subfolders.clear()
            continue
        visited.add(identity)
        # Sorted, so that of two ways into one folder the same is taken on every machine.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        for name in files:
            # A pipe or device is no image, whatever its name; a broken link stays and is reported when read.
            path = Path(folder, name)
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield (relative / name).as_posix()


def _raise(error: OSError) -> None:
    """Report a folder that cannot be listed; `os.walk` would leave it out silently."""
    raise error
