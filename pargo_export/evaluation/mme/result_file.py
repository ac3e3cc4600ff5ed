"""An evaluation as a file."""

from __future__ import annotations

import os
from pathlib import Path

from pargo_export.bundle import read_record_file, write_record_file
from pargo_export.evaluation.mme.records import SCHEMA_VERSION, MmeEvaluation

__all__ = ["read_evaluation", "write_evaluation"]


def write_evaluation(found: MmeEvaluation, path: str | os.PathLike[str]) -> Path:
    """Write an evaluation, with the fields of it that this version does not know.

    Raises:
        ConfigError: The file cannot be written.
    """
    return write_record_file(found, path)


def read_evaluation(path: str | os.PathLike[str]) -> MmeEvaluation:
    """Read an evaluation of this major version of the schema; fields of later minor versions are kept.

    Raises:
        ConfigError: The file cannot be read, is no evaluation, or is of another major version.
    """
    return read_record_file(
        path,
        MmeEvaluation,
        kind="pargo-export mme evaluation",
        schema_version=SCHEMA_VERSION,
        made_by="pargo-export eval mme --output",
        again="evaluate again",
    )
