"""An evaluation as a file: JSON, whole or absent, whose fields survive readers that do not know them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pargo_export.bundle import atomic_write
from pargo_export.errors import ConfigError
from pargo_export.evaluation.mme.records import SCHEMA_VERSION, MmeEvaluation

__all__ = ["read_evaluation", "write_evaluation"]

_KIND = "pargo-export mme evaluation"


def write_evaluation(found: MmeEvaluation, path: str | os.PathLike[str]) -> Path:
    """Write an evaluation, with the fields of it that this version does not know.

    Raises:
        ConfigError: The file cannot be written.
    """
    target = Path(path)
    try:
        atomic_write(target, (found.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}; choose another place"
        ) from error
    return target


def read_evaluation(path: str | os.PathLike[str]) -> MmeEvaluation:
    """Read an evaluation of this major version of the schema; fields of later minor versions are kept.

    Raises:
        ConfigError: The file cannot be read, is no evaluation, or is of another major version.
    """
    source = Path(path)
    try:
        values: Any = json.loads(source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # JSON and UTF-8
        raise ConfigError(
            f"{source}: no JSON ({error}); expected what `pargo-export eval mme --output` wrote"
        ) from error
    kind = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if kind != _KIND:
        raise ConfigError(
            f"{source}: found {kind!r}, expected the result of `pargo-export eval mme --output`"
        )
    version, known = str(values.get("schema_version")), SCHEMA_VERSION.partition(".")[0]
    if version.partition(".")[0] != known:
        raise ConfigError(
            f"{source}: found schema version {version}, expected {known}.x; read it with the version of pargo-export that "
            "wrote it, or evaluate again"
        )
    return MmeEvaluation.parse(values, source=str(source))
