"""Change a bundle: all of it or nothing, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pargo_export.bundle.atomic import fsync_directory, fsync_file
from pargo_export.bundle.faults import is_out_of_space, storage_error
from pargo_export.bundle.hashing import sha256_bytes, sha256_file
from pargo_export.bundle.journal import STAGED_NAME, Journal, has_journal, publish, roll_forward
from pargo_export.bundle.lock import WriterLock
from pargo_export.bundle.paths import WORK_NAME, safe_join
from pargo_export.bundle.schema import FileRecord, Manifest
from pargo_export.bundle.store import read_manifest, require_size
from pargo_export.errors import BundleError, IntegrityError

__all__ = ["BundleTransaction"]

_UNCHANGED = "The bundle is as it was before."
_DECIDED = "The change is recorded; opening the bundle with write access completes it."


class BundleTransaction:
    """A change of a bundle: stage files, record them, and commit them with a new manifest.

    ::

        with BundleTransaction("bundle") as transaction:
            write(transaction.stage("onnx/fp16.onnx"))
            record = transaction.record("onnx/fp16.onnx", stage="graph", parents=["onnx/fp32.onnx"])
            transaction.commit(transaction.previous.merged(files={"onnx/fp16.onnx": record}))

    Leaving the block without `commit`, or by an exception, changes nothing; a bundle directory that
    did not exist is removed again. A process killed at any moment leaves the old bundle or the new
    one, which the next `Bundle.open` or transaction finds. Bundles have one writer at a time.

    Attributes:
        path: The bundle directory.
        previous: Manifest of the bundle before the change; `None` for a new bundle. Inside the block only
            this process can change the bundle, so the new manifest is to be derived from it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.previous: Manifest | None = None
        self._lock = WriterLock(self.path)
        self._staged = self.path / WORK_NAME / STAGED_NAME
        self._records: dict[str, FileRecord] = {}
        self._created: list[Path] = []
        self._active = False

    def __enter__(self) -> Self:
        """Take the lock, finish an interrupted commit and clean up after an interrupted transaction.

        Raises:
            BundleError: Another process writes the bundle, it cannot be written, or its manifest cannot be read.
        """
        try:
            self._make_directory(self.path)
            self._lock.acquire()
            roll_forward(self.path)
            self._lock.sweep()
            self._staged.mkdir()
            self.previous = read_manifest(self.path)
        except BaseException as error:
            outcome = _DECIDED if has_journal(self.path) else _UNCHANGED
            self._close()
            if isinstance(error, OSError):
                raise storage_error(error, self.path, action="write there", outcome=outcome) from error
            raise
        self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Discard what was not committed and release the lock.

        Raises:
            BundleError: The block failed for lack of space.
        """
        was_active = self._active
        self._close()
        if was_active and isinstance(error, OSError) and is_out_of_space(error):
            raise storage_error(
                error, self.path, action="write the staged files", outcome=_UNCHANGED
            ) from error

    def stage(self, relative: str) -> Path:
        """Where to write the new content of the bundle file `relative`; its directory exists.

        Files staged in one directory lie side by side, as they will in the bundle.

        Raises:
            BundleError: The path may leave the bundle, or the directory cannot be made.
        """
        self._require_active()
        safe_join(self.path, relative)
        path = safe_join(self._staged, relative)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.path, action=f"stage {relative}", outcome=_UNCHANGED) from error
        return path

    def record(self, relative: str, *, stage: str, parents: Iterable[str] = ()) -> FileRecord:
        """Hash a staged file, whose content is final from now on.

        Args:
            relative: The bundle file.
            stage: The stage that made it.
            parents: What it was made from: bundle files, or `"checkpoint:<sha256>"`.

        Raises:
            BundleError: The file was not staged, is no regular file, or a path may leave the bundle.
            ConfigError: A parent is no path and no checkpoint hash.
        """
        self._require_active()
        path = safe_join(self._staged, relative)
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{relative} is not recorded: write it, as a regular file, to {path} first")
        try:
            size_bytes, digest = path.stat().st_size, sha256_file(path)
        except OSError as error:
            raise storage_error(error, self.path, action=f"record {relative}", outcome=_UNCHANGED) from error
        values = {"sha256": digest, "size_bytes": size_bytes, "stage": stage, "parents": tuple(parents)}
        record = FileRecord.parse(values, source=f"record of {relative}")
        self._records[relative] = record
        return record

    def commit(self, manifest: Manifest) -> None:
        """Publish the staged files and `manifest`, and remove the files that it no longer lists.

        Raises:
            BundleError: The manifest and the staged files disagree, or the file system failed; the message
                says whether the change was made.
            IntegrityError: A file that the manifest keeps from the old bundle is missing or has another size.
        """
        self._require_active()
        text = manifest.to_json()
        checked = Manifest.from_json(text, source="the new manifest")  # what is published can be opened
        try:
            self._check_contents(checked)
            obsolete = sorted(set(self.previous.files if self.previous else ()) - set(checked.files))
            self._prepare([*self._records, *obsolete])
            files = tuple(sorted(self._records))
            journal = Journal(files=files, obsolete=tuple(obsolete), manifest_sha256=sha256_bytes(text))
            publish(self.path, journal, text)
        except OSError as error:
            outcome = _DECIDED if has_journal(self.path) else _UNCHANGED
            raise storage_error(error, self.path, action="commit", outcome=outcome) from error
        self._active = False
        try:
            roll_forward(self.path)
        except OSError as error:
            raise storage_error(error, self.path, action="finish the commit", outcome=_DECIDED) from error

    def _check_contents(self, manifest: Manifest) -> None:
        """Compare the manifest with the staged files and with the files kept from the old bundle."""
        staged = {path.relative_to(self._staged).as_posix() for path in _files_below(self._staged)}
        forgotten = sorted(staged ^ set(self._records))
        if forgotten:
            raise BundleError(f"staged but not recorded, or recorded but gone: {', '.join(forgotten)}")
        for relative, record in self._records.items():
            if manifest.files.get(relative) != record:
                raise BundleError(
                    f"the manifest does not list {relative} as it was recorded; add the record to files"
                )
            if (self._staged / relative).stat().st_size != record.size_bytes:
                raise BundleError(f"{relative} changed after it was recorded; record a file when it is final")
        old = self.previous.files if self.previous else {}
        for relative, record in manifest.files.items():
            if relative in self._records:
                continue
            kept = old.get(relative)
            if kept is None or (kept.sha256, kept.size_bytes) != (record.sha256, record.size_bytes):
                raise IntegrityError(
                    f"the manifest lists {relative}, which was not staged and is not such a file of the old bundle; "
                    "stage and record it, or drop it from files"
                )
            require_size(self.path, relative, record)

    def _prepare(self, changed: list[str]) -> None:
        """Find out before the commit point whatever could stop the commit after it, and make the files durable."""
        for relative in changed:
            target = safe_join(self.path, relative)
            if target.is_dir():
                raise BundleError(f"bundle {self.path}: {relative} is a directory; move it away")
            self._make_directory(target.parent)
            if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True):
                raise BundleError(
                    f"bundle {self.path}: directory {target.parent} is not writable; get write access"
                )
            if target.parent.stat().st_dev != self._staged.stat().st_dev:
                raise BundleError(
                    f"bundle {self.path}: {target.parent} is on another file system, where files cannot be renamed to; "
                    "keep a bundle on one file system"
                )
        directories = {self.path, self._staged}
        for relative in self._records:
            path = self._staged / relative
            fsync_file(path)
            directories.update(parent for parent in path.parents if self._staged in parent.parents)
        directories.update(directory.parent for directory in self._created)
        for directory in sorted(directories):
            fsync_directory(directory)

    def _make_directory(self, path: Path) -> None:
        """Make a directory with its parents, if need be, and remember which are new."""
        missing = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self._created.append(directory)

    def _close(self) -> None:
        """Leave a decided commit to the next opening, or remove everything that is not the bundle."""
        self._active = False
        decided = has_journal(self.path)
        if self._lock.held and not decided:
            with contextlib.suppress(OSError):  # the next transaction tries again
                self._lock.sweep()
        self._lock.release()
        if not decided:
            for directory in reversed(self._created):
                with contextlib.suppress(OSError):  # not empty: it holds the bundle
                    directory.rmdir()

    def _require_active(self) -> None:
        if not self._active:
            raise BundleError(
                f"the transaction on {self.path} is over or has not begun; use it inside `with`, once"
            )


def _files_below(directory: Path) -> Iterable[Path]:
    for parent, _, names in os.walk(directory):
        yield from (Path(parent) / name for name in names)
