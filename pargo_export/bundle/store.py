"""Open a bundle and find, check and hash its files."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pargo_export.bundle.hashing import sha256_file
from pargo_export.bundle.journal import has_journal, recover
from pargo_export.bundle.paths import MANIFEST_NAME, contained, safe_join
from pargo_export.bundle.schema import FileRecord, Manifest
from pargo_export.bundle.variant import Variant
from pargo_export.errors import BundleError, IntegrityError

__all__ = ["Bundle", "FileCheck", "read_manifest", "require_size"]

_HOW_TO_MAKE = "make a bundle with `pargo-export onnx CHECKPOINT -o DIRECTORY`"
_MAX_READS = 100


@dataclass(frozen=True)
class FileCheck:
    """What `Bundle.verify` found about one file.

    Attributes:
        path: The file, relative to the bundle.
        ok: Whether it is the file that the manifest describes.
        reason: Why not; empty if it is.
    """

    path: str
    ok: bool
    reason: str = ""


class Bundle:
    """A bundle on disk, as it was when it was opened. Use `Bundle.open`.

    Attributes:
        path: The directory.
        manifest: What it contains.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, variants={sorted(self.manifest.variants)})"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest and see that every file is there, with its size; `verify` compares the content.

        A commit that was interrupted, even by a power failure, is finished first. A commit that runs
        at the same time is waited for: the result is the bundle before it or after it.

        Raises:
            BundleError: There is no bundle, its manifest cannot be read, or it is for another schema version.
            IntegrityError: A file is missing or has another size.
        """
        root = Path(path)
        _require_directory(root)
        for _ in range(_MAX_READS):
            recover(root)
            before = _read_bytes(root)
            try:
                bundle = cls(root, _parse(root, before))
                for relative, record in bundle.manifest.files.items():
                    require_size(root, relative, record)
            except BundleError:
                if _is_settled(root, before):
                    raise
            else:
                if _is_settled(root, before):
                    return bundle
        raise BundleError(
            f"bundle {root} changes faster than it can be read; stop the process that writes it"
        )

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether `path` holds a bundle, valid or not, that this process can see."""
        root = Path(path)
        return os.path.lexists(root / MANIFEST_NAME) or has_journal(root)

    def variant(self, name: str | None = None) -> Variant:
        """Return the variant `name`, or the only one.

        Raises:
            BundleError: There is no such variant, or no name was given and there is not exactly one.
        """
        variants = self.manifest.variants
        if name is None and len(variants) == 1:
            return next(iter(variants.values()))
        if name is not None and name in variants:
            return variants[name]
        choices = (
            f"choose one of {', '.join(sorted(variants))}"
            if variants
            else "it has no variants; export one first"
        )
        problem = "a variant must be named" if name is None else f"there is no variant {name!r}"
        raise BundleError(f"bundle {self.path}: {problem}; {choices}")

    def file(self, relative: str) -> Path:
        """Path of a file in this bundle, which need not exist.

        Raises:
            BundleError: The path may leave the bundle.
        """
        return safe_join(self.path, relative)

    def check(self, relative: str) -> Path:
        """Hash a file and return its path if it is the file that the manifest describes.

        Raises:
            BundleError: The path may leave the bundle.
            IntegrityError: The manifest does not list the file, or it is missing, unreadable or different.
        """
        record = self.manifest.files.get(relative)
        if record is None:
            listed = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise IntegrityError(
                f"bundle {self.path}: the manifest does not list {relative!r}; it lists {listed}"
            )
        path = require_size(self.path, relative, record)
        try:
            found = sha256_file(path)
        except OSError as error:
            raise _bad(self.path, relative, record, f"cannot be read ({error})") from error
        if found != record.sha256:
            raise _bad(self.path, relative, record, f"has sha256 {found}, expected {record.sha256}")
        return path

    def verify(self) -> tuple[FileCheck, ...]:
        """Hash every file that the manifest lists; findings are returned, not raised."""
        return tuple(self._verify(relative) for relative in sorted(self.manifest.files))

    def _verify(self, relative: str) -> FileCheck:
        try:
            self.check(relative)
        except BundleError as error:
            return FileCheck(relative, ok=False, reason=str(error))
        return FileCheck(relative, ok=True)


def read_manifest(root: Path) -> Manifest | None:
    """Manifest of the bundle at rest in `root`; `None` if there is none.

    Raises:
        BundleError: It cannot be read.
    """
    text = _read_bytes(root)
    return None if text is None else _parse(root, text)


def require_size(root: Path, relative: str, record: FileRecord) -> Path:
    """Path of a bundle file that is there and has the recorded size.

    Raises:
        BundleError: The path may leave the bundle.
        IntegrityError: The file is missing, is no regular file, or has another size.
    """
    path = safe_join(root, relative)
    try:
        status = path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise _bad(
            root, relative, record, "is missing" if missing else f"cannot be read ({error})"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise _bad(root, relative, record, "is not a file")
    if status.st_size != record.size_bytes:
        raise _bad(root, relative, record, f"has {status.st_size} bytes, expected {record.size_bytes}")
    return path


def _bad(root: Path, relative: str, record: FileRecord, problem: str) -> IntegrityError:
    return IntegrityError(
        f"bundle {root}: {relative} {problem}; copy the bundle again, or repeat the stage {record.stage!r}, "
        "which wrote the file (if it was written again since the bundle was opened: open it again)"
    )


def _require_directory(root: Path) -> None:
    try:
        is_directory, exists = root.is_dir(), root.exists()
    except OSError as error:
        raise BundleError(f"bundle {root} cannot be opened: {error}; check the permissions") from error
    if not is_directory:
        found = "is a file, not a directory" if exists else "does not exist"
        raise BundleError(f"bundle {root} {found}; {_HOW_TO_MAKE}")


def _read_bytes(root: Path) -> bytes | None:
    path = contained(root, MANIFEST_NAME)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}; check its type and permissions") from error


def _parse(root: Path, text: bytes | None) -> Manifest:
    if text is None:
        raise BundleError(f"{root} is not a bundle: it has no {MANIFEST_NAME}; {_HOW_TO_MAKE}")
    return Manifest.from_json(text, source=str(root / MANIFEST_NAME))


def _is_settled(root: Path, before: bytes | None) -> bool:
    """Whether no commit ran since the manifest was read; the order of the two looks matters."""
    return not has_journal(root) and _read_bytes(root) == before
