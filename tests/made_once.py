"""What takes long to make and is only read: made by one process of a parallel run, used by all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a directory that `make` filled; the processes of one run share it, so do not write to it.

    Args:
        factory: Of this process.
        name: The same in every process.
        make: Called with the directory, which is empty; where it fails, the next process tries again.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the run
    directory, ready = root / f"shared-{name}", root / f"shared-{name}.ready"
    with FileLock(root / f"shared-{name}.lock"):
        if not ready.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            make(directory)
            ready.touch()
    return directory
