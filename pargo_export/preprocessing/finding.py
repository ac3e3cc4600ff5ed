"""Find pictures in files and folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pargo_export.errors import InputError

__all__ = ["find_images"]

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return the pictures: files as they are, of directories every picture by its suffix, sorted.

    Raises:
        InputError: A directory holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file()
        )
        if not inside:
            raise InputError(
                f"{path}: found no pictures there, expected files {', '.join(sorted(_SUFFIXES))}"
            )
        found += inside
    return found
