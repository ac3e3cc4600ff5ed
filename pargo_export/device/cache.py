"""Where this user keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_directory"]


def cache_directory(purpose: str) -> Path:
    """Return the directory for one purpose under `XDG_CACHE_HOME`, by default `~/.cache`; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()
    return root / "pargo-export" / purpose
