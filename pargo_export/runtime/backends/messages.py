"""What the errors of inference engines say, in one line."""

from __future__ import annotations

__all__ = ["last_line"]


def last_line(error: Exception) -> str:
    """Return the last line that is not empty: engines put where they were before what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
