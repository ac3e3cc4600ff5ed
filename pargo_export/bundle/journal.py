"""The write-ahead journal of a commit: what has to happen between the old bundle and the new one.

A transaction prepares everything in the work directory of the bundle:

    .transaction/staged/<path>    new files, under the paths they will have
    .transaction/manifest.json    the new manifest
    .transaction/commit.json      the journal; its appearance is the commit point

From then on the new bundle is decided, and `roll_forward` makes it so. Each of its steps may have
been done before, so it can be interrupted and repeated by any process at any time.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path, PurePosixPath
from typing import Literal

from pargo_export.bundle.atomic import atomic_write, fsync_directory
from pargo_export.bundle.fields import BundlePath, Sha256
from pargo_export.bundle.hashing import sha256_file
from pargo_export.bundle.lock import BundleLockedError, WriterLock
from pargo_export.bundle.paths import MANIFEST_NAME, WORK_NAME, contained, safe_join
from pargo_export.config import Record
from pargo_export.errors import BundleError

__all__ = [
    "STAGED_NAME",
    "Journal",
    "has_journal",
    "publish",
    "recover",
    "roll_forward",
]

STAGED_NAME = "staged"
_JOURNAL_NAME = "commit.json"
# A commit only renames files, so a live one is over in milliseconds, on a slow memory card in a second.
_PATIENCE_S = 5.0
_POLL_S = 0.02


class Journal(Record):
    """What a commit changes.

    Attributes:
        format: Version of the journal.
        files: Staged files to rename into place.
        obsolete: Files of the old bundle that the new one does not have.
        manifest_sha256: Hash of the new manifest.
    """

    format: Literal[1] = 1
    files: tuple[BundlePath, ...]
    obsolete: tuple[BundlePath, ...]
    manifest_sha256: Sha256


def has_journal(root: Path) -> bool:
    """Whether a commit of the bundle is decided but not finished."""
    return os.path.lexists(root / WORK_NAME / _JOURNAL_NAME)


def publish(root: Path, journal: Journal, manifest: bytes) -> None:
    """Decide the commit: the staged files are durable, and with the journal so is the decision.

    Raises:
        OSError: The manifest or the journal cannot be written; see `has_journal` for what was decided.
    """
    work = root / WORK_NAME
    atomic_write(work / MANIFEST_NAME, manifest)
    atomic_write(work / _JOURNAL_NAME, journal.model_dump_json(indent=2).encode() + b"\n")


def roll_forward(root: Path) -> None:
    """Finish the decided commit, if there is one; only the holder of the `WriterLock` may.

    Raises:
        BundleError: The journal or what it refers to is damaged.
        OSError: A file cannot be renamed or removed; the commit stays decided.
    """
    journal = _read(root)
    if journal is None:
        return
    work = contained(root, WORK_NAME)
    staged_manifest = work / MANIFEST_NAME
    manifest = staged_manifest if staged_manifest.exists() else root / MANIFEST_NAME
    if not manifest.exists() or sha256_file(manifest) != journal.manifest_sha256:
        raise _damaged(root, f"{manifest} is not the manifest that it announces")

    touched = {root}
    for relative in journal.files:
        source, target = safe_join(work / STAGED_NAME, relative), safe_join(root, relative)
        touched.update(root / parent for parent in PurePosixPath(relative).parents)
        if os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    for directory in sorted(touched):
        fsync_directory(directory)
    if manifest == staged_manifest:
        manifest.replace(root / MANIFEST_NAME)
        fsync_directory(root)
    for relative in journal.obsolete:
        safe_join(root, relative).unlink(missing_ok=True)
    (work / _JOURNAL_NAME).unlink()


def recover(root: Path) -> None:
    """Finish the decided commit of a writer that died; wait for one that lives.

    Raises:
        BundleError: The commit cannot be finished: the bundle is not writable, a live writer does not
            finish it, or the journal is damaged.
    """
    give_up = time.monotonic() + _PATIENCE_S
    while has_journal(root):
        lock = WriterLock(root)
        try:
            lock.acquire()
            roll_forward(root)
            lock.sweep()
        except (BundleLockedError, OSError) as error:
            # Without write access a live writer cannot be told from a dead one: wait for either.
            if time.monotonic() > give_up:
                raise _unfinished(root, error) from error
            time.sleep(_POLL_S)
        finally:
            lock.release()


def _read(root: Path) -> Journal | None:
    try:
        text = contained(root, f"{WORK_NAME}/{_JOURNAL_NAME}").read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Journal.parse(json.loads(text), source="journal")
    except (BundleError, ValueError, RecursionError) as error:
        raise _damaged(root, str(error)) from error


def _damaged(root: Path, reason: str) -> BundleError:
    return BundleError(
        f"bundle {root}: the journal {WORK_NAME}/{_JOURNAL_NAME} of an interrupted commit is damaged ({reason}); "
        f"remove {root / WORK_NAME} and repeat the stage that was interrupted"
    )


def _unfinished(root: Path, error: Exception) -> BundleError:
    if isinstance(error, BundleLockedError):
        return BundleLockedError(
            f"bundle {root}: a commit by another process does not finish; try again later"
        )
    return BundleError(
        f"bundle {root}: the commit of an interrupted writer cannot be finished here ({error}); "
        "open the bundle once with write access and free disk space, for example with `pargo-export verify`"
    )
