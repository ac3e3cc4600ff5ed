"""Where things lie in a bundle, and paths that cannot leave it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pargo_export.errors import BundleError

__all__ = ["MANIFEST_NAME", "WORK_NAME", "check_relative", "contained", "safe_join"]

MANIFEST_NAME = "manifest.json"
# Lock, journal and staged files of a transaction; absent from a bundle at rest.
WORK_NAME = ".transaction"


def check_relative(relative: str) -> str:
    """Return `relative` if it is a plain POSIX path of a bundle file, below the bundle and in one spelling.

    Raises:
        BundleError: The path is empty, absolute, leaves the bundle, has a backslash or an unprintable
            character, is spelled in a roundabout way, or names the bundle's own bookkeeping.
    """
    parts = relative.split("/")
    if not relative:
        reason = "it is empty"
    elif not relative.isprintable():
        reason = "it has an unprintable character"
    elif "\\" in relative:
        reason = "it has a backslash; use '/'"
    elif relative.startswith("/"):
        reason = "it is absolute"
    elif ".." in parts:
        reason = "'..' may leave the bundle"
    elif str(PurePosixPath(relative)) != relative or relative == ".":
        reason = "it is not in its shortest form"
    elif parts[0] == WORK_NAME or relative == MANIFEST_NAME:
        reason = "the name is reserved"
    else:
        return relative
    raise BundleError(f"path {relative!r} is refused: {reason}; name a file relative to the bundle directory")


def contained(root: Path, relative: str) -> Path:
    """Join without following a symbolic link out of `root`; the file need not exist.

    Raises:
        BundleError: A symbolic link on the way leads out of the bundle.
    """
    path = root / relative
    base = os.path.realpath(root)
    target = os.path.realpath(path)
    if os.path.commonpath([base, target]) != base:
        raise BundleError(
            f"path {relative!r} of bundle {root} is refused: a symbolic link leads out of the bundle, to {target}; "
            "replace the link by the file itself"
        )
    return path


def safe_join(root: Path, relative: str) -> Path:
    """Path of a bundle file, by `check_relative` and `contained`.

    Raises:
        BundleError: The path may leave the bundle.
    """
    return contained(root, check_relative(relative))
