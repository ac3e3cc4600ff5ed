"""What was read, what was left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pargo_export.bundle import sha256_file
from pargo_export.checkpoint.source import StoredTensor
from pargo_export.config import Record
from pargo_export.errors import CheckpointError

__all__ = ["CheckpointReport", "FileRecord", "TensorGroup", "count_dtypes", "count_groups", "hash_file"]


class FileRecord(Record):
    """One file of a checkpoint.

    Attributes:
        name: File name.
        sha256: Hash of its content.
        size_bytes: Its size.
    """

    name: str
    sha256: str
    size_bytes: int


class TensorGroup(Record):
    """Tensors that were recognised and left out.

    Attributes:
        name: The part they belong to.
        num_tensors: How many.
        num_parameters: Their elements.
    """

    name: str
    num_tensors: int
    num_parameters: int


class CheckpointReport(Record):
    """The provenance of a loaded model.

    Attributes:
        files: Every file that took part.
        container: How the tensors were wrapped (`state dict`, `model`, `safetensors`, `3 shards`).
        config_source: Where the configuration came from.
        num_tensors: Weights loaded.
        num_parameters: Their elements.
        num_buffers: Derived buffers, checked and not loaded.
        stored_dtypes: Weights per stored dtype.
        ignored: Parts that are not the visual front-end.
        notes: Everything else that a reader should know.
    """

    files: tuple[FileRecord, ...]
    container: str
    config_source: str
    num_tensors: int
    num_parameters: int
    num_buffers: int
    stored_dtypes: dict[str, int]
    ignored: tuple[TensorGroup, ...] = ()
    notes: tuple[str, ...] = ()


def hash_file(path: Path) -> FileRecord:
    """Hash a file of any size.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        return FileRecord(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def count_groups(members: Iterable[tuple[str, StoredTensor]]) -> tuple[TensorGroup, ...]:
    """Count tensors and parameters per group, in order of appearance."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, tensor in members:
        tensors[name] += 1
        parameters[name] += tensor.num_elements
    return tuple(
        TensorGroup(name=name, num_tensors=count, num_parameters=parameters[name])
        for name, count in tensors.items()
    )


def count_dtypes(tensors: Iterable[StoredTensor]) -> dict[str, int]:
    """Count tensors per stored dtype."""
    return dict(sorted(Counter(tensor.dtype for tensor in tensors).items()))
