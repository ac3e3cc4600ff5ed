"""The trained sample that travels with the package: copied out, so that it can be used like a checkpoint of one's own."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

from pargo_export.assets import TRAINED_SAMPLE
from pargo_export.bundle.atomic import fsync_directory, fsync_file
from pargo_export.errors import CheckpointError

__all__ = ["CHECKPOINT_NAME", "LLM_NAME", "copy_trained_sample"]

CHECKPOINT_NAME, LLM_NAME, _CARD_NAME = "model.safetensors", "llm", "CARD.md"
_PARTS = {CHECKPOINT_NAME, LLM_NAME, _CARD_NAME}


def copy_trained_sample(directory: str | Path, *, overwrite: bool = False) -> Path:
    """Copy checkpoint, language model and card of the trained sample into a directory that it appears in as a whole.

    Args:
        directory: Created; it must not exist, or be an empty directory, unless `overwrite`.
        overwrite: Replace a directory that holds an earlier copy, and nothing else.

    Returns:
        The directory, with `model.safetensors`, `llm/` and `CARD.md`.

    Raises:
        CheckpointError: The directory exists or holds other files, or cannot be written.
    """
    directory = Path(directory)
    _check_free(directory, overwrite=overwrite)
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
    retired = temporary.with_suffix(".old")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(TRAINED_SAMPLE, temporary, copy_function=shutil.copyfile)
        for folder, _, files in os.walk(temporary):
            for file in files:
                fsync_file(Path(folder, file))
            fsync_directory(Path(folder))
        if directory.exists():
            directory.rename(retired)
        temporary.rename(directory)
        fsync_directory(directory.parent)
    except OSError as error:
        if retired.exists() and not directory.exists():
            retired.rename(directory)
        hint = "free some space" if error.errno == errno.ENOSPC else "choose a directory with room and access"
        raise CheckpointError(f"{directory}: cannot be written: {error}; {hint}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if directory.exists():
            shutil.rmtree(retired, ignore_errors=True)
    return directory


def _check_free(directory: Path, *, overwrite: bool) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory}: found a file, expected a directory to create; choose another name"
        )
    held = {path.name for path in directory.iterdir()}
    if held and not overwrite:
        raise CheckpointError(
            f"{directory}: exists already; choose another name or ask to overwrite it (--overwrite)"
        )
    others = sorted(held - _PARTS)
    if others:
        raise CheckpointError(
            f"{directory}: found {', '.join(others[:3])}, expected a copy of the trained sample to replace; choose "
            "another name, so that nothing else is lost"
        )
