"""A result as a file."""

from __future__ import annotations

import os
from pathlib import Path

from pargo_export.bench.records import SCHEMA_VERSION, BenchResult
from pargo_export.bundle import read_record_file, write_record_file

__all__ = ["read_result", "write_result"]


def write_result(result: BenchResult, path: str | os.PathLike[str]) -> Path:
    """Write a result, with the fields of it that this version does not know.

    Raises:
        ConfigError: The file cannot be written.
    """
    return write_record_file(result, path)


def read_result(path: str | os.PathLike[str]) -> BenchResult:
    """Read a result of this major version of the schema; fields of later minor versions are kept.

    Raises:
        ConfigError: The file cannot be read, is no result of a benchmark, or is of another major version.
    """
    return read_record_file(
        path,
        BenchResult,
        kind="pargo-export benchmark",
        schema_version=SCHEMA_VERSION,
        made_by="pargo-export bench --output",
        again="measure again",
    )
