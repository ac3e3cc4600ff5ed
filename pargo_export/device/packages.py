"""Which version of a package is installed, without importing it."""

from __future__ import annotations

from importlib import metadata

__all__ = ["find_version"]

# Distributions that provide the same module.
_SAME = {
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "nvidia-cublas": ("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cublas-cu13"),
    "nvidia-cudnn": ("nvidia-cudnn", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
}


def find_version(package: str) -> str | None:
    """Return the version of a package under any of its names; `None` if it is not installed."""
    for name in _SAME.get(package, (package,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203 - a handful of names
            continue
    return None
