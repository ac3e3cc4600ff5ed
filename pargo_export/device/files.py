"""Read the small text files in which Linux tells about a machine."""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_int", "read_text"]


def read_text(path: Path) -> str:
    """Return what a file says, without the white space and zero bytes around it; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip("\0 \t\n")
    except OSError:
        return ""


def read_int(path: Path) -> int | None:
    """Return the whole number in a file; `None` if there is none, or it cannot be read."""
    try:
        return int(read_text(path))
    except ValueError:
        return None
