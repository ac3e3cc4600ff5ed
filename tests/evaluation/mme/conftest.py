"""Data in the form of MME."""

from __future__ import annotations

from pathlib import Path

import pytest
from mme_case import TASKS, write_data


@pytest.fixture(scope="session")
def mme_data(tmp_path_factory) -> Path:
    """A folder in ParGo's layout with three tasks of three images each; do not write to it."""
    return write_data(tmp_path_factory.mktemp("mme"), TASKS)
