"""Files that travel with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PHOTOGRAPH"]

PHOTOGRAPH = Path(__file__).with_name("coffee.jpg")
