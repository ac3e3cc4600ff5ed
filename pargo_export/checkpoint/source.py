"""Tensors of a checkpoint by name, read on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

from torch import Tensor

__all__ = ["StoredTensor", "TensorSource"]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file; nothing but its shape and dtype is known until `read` is called.

    Attributes:
        key: Its name in the file.
        shape: Its shape.
        dtype: PyTorch name (`float16`), or the file format's where PyTorch has none.
        read: Read it as it is stored.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor] = field(repr=False, compare=False)

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return prod(self.shape)


@dataclass(frozen=True)
class TensorSource:
    """What a checkpoint holds.

    Attributes:
        files: Every file that takes part, in order.
        tensors: The tensors by name.
        metadata: Text stored beside the tensors.
        container: How the tensors are wrapped, for the report.
        notes: What a reader of the report should know.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    container: str = "state dict"
    notes: tuple[str, ...] = ()

    def renamed(self, tensors: Mapping[str, StoredTensor], *notes: str) -> TensorSource:
        """Return the same source with other names, and `notes` added."""
        return replace(self, tensors=tensors, notes=(*self.notes, *notes))
