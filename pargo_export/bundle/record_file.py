"""A record as a file of its own: JSON, whole or absent, whose fields survive readers that do not know them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pargo_export.bundle.atomic import atomic_write
from pargo_export.config import Record
from pargo_export.errors import ConfigError

__all__ = ["read_record_file", "write_record_file"]

_Record = TypeVar("_Record", bound=Record)


def write_record_file(record: Record, path: str | os.PathLike[str]) -> Path:
    """Write a record, with the fields of it that this version does not know.

    Raises:
        ConfigError: The file cannot be written.
    """
    target = Path(path)
    try:
        atomic_write(target, (record.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}; choose another place"
        ) from error
    return target


def read_record_file(
    path: str | os.PathLike[str],
    model: type[_Record],
    *,
    kind: str,
    schema_version: str,
    made_by: str,
    again: str,
) -> _Record:
    """Read a record of this major version of its schema; fields of later minor versions are kept.

    Args:
        path: The file.
        model: The record.
        kind: What its field `kind` must be.
        schema_version: `MAJOR.MINOR` that this version writes.
        made_by: The command that writes such files, for errors.
        again: What to do where nothing can read the file, for errors.

    Raises:
        ConfigError: The file cannot be read, is of another kind, or of another major version.
    """
    source = Path(path)
    try:
        values: Any = json.loads(source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # JSON and UTF-8
        raise ConfigError(f"{source}: no JSON ({error}); expected what `{made_by}` wrote") from error
    found = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if found != kind:
        raise ConfigError(f"{source}: found {found!r}, expected the result of `{made_by}`")
    version, known = str(values.get("schema_version")), schema_version.partition(".")[0]
    if version.partition(".")[0] != known:
        raise ConfigError(
            f"{source}: found schema version {version}, expected {known}.x; read it with the version of pargo-export that "
            f"wrote it, or {again}"
        )
    return model.parse(values, source=str(source))
