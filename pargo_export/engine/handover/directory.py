"""Write a directory so that it is there whole or not at all, and replace only what this package wrote."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pargo_export._version import __version__
from pargo_export.bundle import atomic_write
from pargo_export.bundle.atomic import fsync_directory, fsync_file
from pargo_export.engine.handover.source import Source
from pargo_export.errors import EngineError

__all__ = ["RECORD_NAME", "Format", "Handover", "finish", "output_directory"]

Format = Literal["triton", "ep-context", "polygraphy"]
RECORD_NAME = "handover.json"


@dataclass(frozen=True)
class Handover:
    """What was handed over.

    Attributes:
        format: The format.
        path: The directory.
        variant: The variant.
        engine: The engine; `None` where the ONNX graph was taken.
        files: Every file, relative to the directory.
        notes: What to know before using it.
    """

    format: Format
    path: Path
    variant: str
    engine: str | None
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def output_directory(path: Path, source: Source, *, force: bool) -> Iterator[Path]:
    """Give a directory to fill, and put it in the place of `path` if the block ends well.

    Args:
        path: The directory to make. Its parents are made too.
        source: What is handed over.
        force: Replace a directory that a hand-over wrote before.

    Raises:
        EngineError: `path` is there and may not be replaced, lies in the bundle, or cannot be written.
    """
    path = path.absolute()
    bundle = source.bundle.path.resolve()
    if path.resolve() == bundle or bundle in path.resolve().parents:
        raise EngineError(
            f"{path} lies in the bundle {bundle}, which holds its own files only; choose another directory"
        )
    _require_replaceable(path, force=force)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _put_in_place(temporary, path)
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error}; nothing was changed there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish(
    directory: Path, path: Path, format_: Format, source: Source, *, readme: str, notes: tuple[str, ...] = ()
) -> Handover:
    """Add `README.md` and the record to a filled directory, and return the result as it will be at `path`."""
    atomic_write(directory / "README.md", readme.encode())
    record = {
        "format": format_,
        "variant": source.variant.name,
        "graph_sha256": source.graph_sha256,
        "engine": source.engine.name if source.engine else None,
        "engine_sha256": source.engine.engine_sha256 if source.engine else None,
        "notes": list(notes),
        "written_by": f"pargo-export {__version__}",
    }
    atomic_write(directory / RECORD_NAME, json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    files = sorted(item.relative_to(directory).as_posix() for item in directory.rglob("*") if item.is_file())
    engine = source.engine.name if source.engine else None
    return Handover(format_, path.absolute(), source.variant.name, engine, tuple(files), notes)


def _require_replaceable(path: Path, *, force: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise EngineError(f"{path} is there and is no directory; choose another place")
    if not any(path.iterdir()):
        return
    if not (path / RECORD_NAME).is_file():
        raise EngineError(
            f"{path} holds files that no hand-over wrote (it has no {RECORD_NAME}), so it is not replaced, "
            "not even by force; choose a new directory"
        )
    if not force:
        raise EngineError(
            f"{path} holds an earlier hand-over; replace it with --force, or choose another directory"
        )


def _put_in_place(temporary: Path, path: Path) -> None:
    """Make it durable and rename it; what was there before stands aside until the new directory is in its place."""
    for item in (temporary, *temporary.rglob("*")):
        (fsync_directory if item.is_dir() else fsync_file)(item)
    if not path.is_dir():
        temporary.replace(path)
        return
    aside = temporary.with_suffix(".old")
    path.replace(aside)
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
