"""SHA-256 of files and of recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["recipe_sha256", "sha256_bytes", "sha256_file", "sha256_files"]

_BLOCK_BYTES = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data`, in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks: a file larger than the memory is fine.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


def sha256_files(paths: Sequence[Path]) -> str:
    """One hash for a set of files, whatever their order; that of a single file is its plain SHA-256.

    Raises:
        OSError: A file cannot be read.
        ValueError: There is no file, or two files have one name.
    """
    hashes = {path.name: sha256_file(path) for path in paths}
    if not hashes or len(hashes) != len(paths):
        raise ValueError(f"expected files with distinct names, found {[str(path) for path in paths]}")
    return next(iter(hashes.values())) if len(hashes) == 1 else recipe_sha256(hashes)


def recipe_sha256(recipe: Mapping[str, Any]) -> str:
    """Hash of the canonical JSON of everything that made a file; the order of keys does not matter.

    Raises:
        TypeError: A value is not of a JSON type.
        ValueError: A number is not finite.
    """
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())
