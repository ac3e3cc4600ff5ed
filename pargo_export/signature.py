"""Names, dtypes and axes of what goes into a graph and what comes out."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pargo_export.config import Record
from pargo_export.errors import InputError

__all__ = ["Signature", "TensorSpec"]


class TensorSpec(Record):
    """One input or output.

    Attributes:
        name: Name in the graph.
        dtype: NumPy name (`float32`, `float16`, `uint8`) or `bfloat16`.
        shape: Integers are fixed; a string names a dynamic axis (`"batch"`).
        description: What the values are, in one sentence.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    description: str = ""

    def check(self, array: NDArray[np.generic]) -> dict[str, int]:
        """Compare an array with this spec and return the sizes of its dynamic axes.

        Raises:
            InputError: Rank, a fixed axis or the dtype differs.
        """
        if _name(array.dtype) != self.dtype:
            raise InputError(f"{self._differs(array)}; convert the dtype")
        if array.ndim != len(self.shape):
            raise InputError(f"{self._differs(array)}; the number of axes differs")
        axes: dict[str, int] = {}
        for axis, (size, wanted) in enumerate(zip(array.shape, self.shape, strict=True)):
            if isinstance(wanted, str):
                axes[wanted] = size
                if size == 0:
                    found = f"{array.dtype}{list(array.shape)}"
                    raise InputError(f"{self.name}: axis {axis} ({wanted}) is empty in {found}")
            elif size != wanted:
                raise InputError(f"{self._differs(array)}; axis {axis} differs")
        return axes

    def _differs(self, array: NDArray[np.generic]) -> str:
        expected = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        return f"{self.name}: found {array.dtype}{list(array.shape)}, expected {expected}"


class Signature(Record):
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_feed(self, feed: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        """Check a feed and return the sizes of the dynamic axes.

        Raises:
            InputError: A name is missing or unknown, a tensor differs, or two tensors disagree on an axis.
        """
        if len(feed) != len(self.inputs) or any(spec.name not in feed for spec in self.inputs):
            raise InputError(f"feed has {sorted(feed)}, expected {sorted(spec.name for spec in self.inputs)}")
        axes: dict[str, int] = {}
        for spec in self.inputs:
            for axis, size in spec.check(feed[spec.name]).items():
                if axes.setdefault(axis, size) != size:
                    raise InputError(
                        f"{spec.name}: axis {axis!r} has size {size}, another input has {axes[axis]}"
                    )
        return axes


@functools.lru_cache(maxsize=64)
def _name(dtype: np.dtype[np.generic]) -> str:
    """Return the name of a dtype; NumPy makes it anew each time, which takes longer than the rest of a check."""
    return str(dtype)
