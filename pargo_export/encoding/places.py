"""The directory of an encoded data set: what lies where, who may write it, and what may be thrown away."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pargo_export.bundle.lock import BundleLockedError, WriterLock
from pargo_export.bundle.paths import WORK_NAME as LOCK_DIRECTORY
from pargo_export.encoding.records import INDEX_NAME
from pargo_export.errors import BundleError, InputError, PargoExportError

__all__ = [
    "count_attempt",
    "forget_shards",
    "plan_path",
    "record_path",
    "remove_all",
    "remove_leftovers",
    "remove_work",
    "require_own",
    "work_directory",
    "writing",
]

_WORK_NAME = ".encoding"
_SHARD = re.compile(r"part-\d{5,}-of-\d{5,}\.(parquet|safetensors)")
_LEFTOVER = re.compile(
    r"\.(part-\d{5,}-of-\d{5,}\.(parquet|safetensors)|index\.json)\.[0-9a-f]{16}\.tmp"
)  # of atomic_write


def work_directory(output: Path) -> Path:
    """Where the plan and the records of finished shards lie until all of them are there."""
    return output / _WORK_NAME


def plan_path(output: Path) -> Path:
    """Return the file of the plan."""
    return work_directory(output) / "plan.json"


def record_path(output: Path, number: int) -> Path:
    """Return the file of the record of a shard."""
    return work_directory(output) / f"part-{number:05}.json"


def count_attempt(output: Path, number: int) -> int:
    """Note that a worker begins with a shard, and return how many did so since the plan was written.

    Raises:
        OSError: The note cannot be written.
    """
    with _attempts_path(output, number).open("ab") as file:
        file.write(b".")
        return file.tell()


def forget_shards(output: Path, numbers: Iterable[int]) -> None:
    """Remove the records of shards, and how often they were begun.

    Raises:
        OSError: A file cannot be removed.
    """
    for number in numbers:
        record_path(output, number).unlink(missing_ok=True)
        _attempts_path(output, number).unlink(missing_ok=True)


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Make the directory, and be the only one that writes it.

    Raises:
        InputError: Another process writes it.
        PargoExportError: It cannot be made or written.
    """
    lock = WriterLock(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except BundleLockedError as error:
        raise InputError(
            f"{output} is being written by another process; wait until it has finished"
        ) from error
    except (BundleError, OSError) as error:
        raise PargoExportError(
            f"{output}: cannot be written ({error}); get write access, or choose another directory"
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_own(output: Path) -> None:
    """Refuse a directory that holds something else: nothing of others is overwritten, or shadowed.

    Raises:
        InputError: It does.
    """
    known = {INDEX_NAME, _WORK_NAME, LOCK_DIRECTORY}
    if (output / INDEX_NAME).exists() or work_directory(output).exists():
        return
    others = [entry.name for entry in output.iterdir() if entry.name not in known]
    if others:
        raise InputError(
            f"{output}: found {min(others)!r} and no {INDEX_NAME}, expected an empty directory, or one that "
            "`encode-dataset` wrote; choose another one"
        )


def _attempts_path(output: Path, number: int) -> Path:
    return work_directory(output) / f"part-{number:05}.attempts"


def remove_leftovers(output: Path) -> None:
    """Remove files that a killed process had not finished; only who writes the directory may."""
    for entry in list(output.iterdir()):
        if _LEFTOVER.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def remove_work(output: Path) -> None:
    """Remove the plan and the records of shards.

    Raises:
        OSError: They cannot be removed.
    """
    directory = work_directory(output)
    if directory.exists():
        shutil.rmtree(directory)


def remove_all(output: Path) -> None:
    """Remove everything that was encoded here, and nothing else.

    Raises:
        OSError: Something cannot be removed.
    """
    (output / INDEX_NAME).unlink(missing_ok=True)  # first: without it nothing is taken for whole
    remove_work(output)
    remove_leftovers(output)
    for entry in list(output.iterdir()):
        if _SHARD.fullmatch(entry.name):
            entry.unlink()
