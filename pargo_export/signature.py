"""Names, dtypes and axes of what goes into a graph and what comes out."""

from __future__ import annotations

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
        found = f"{array.dtype}{list(array.shape)}"
        expected = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        if str(array.dtype) != self.dtype:
            raise InputError(f"{self.name}: found {found}, expected {expected}; convert the dtype")
        if array.ndim != len(self.shape):
            raise InputError(f"{self.name}: found {found}, expected {expected}; the number of axes differs")
        axes: dict[str, int] = {}
        for axis, (size, wanted) in enumerate(zip(array.shape, self.shape, strict=True)):
            if isinstance(wanted, str):
                axes[wanted] = size
                if size == 0:
                    raise InputError(f"{self.name}: axis {axis} ({wanted}) is empty in {found}")
            elif size != wanted:
                raise InputError(f"{self.name}: found {found}, expected {expected}; axis {axis} differs")
        return axes


class Signature(Record):
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_feed(self, feed: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
        """Check a feed and return the sizes of the dynamic axes.

        Raises:
            InputError: A name is missing or unknown, a tensor differs, or two tensors disagree on an axis.
        """
        names = [spec.name for spec in self.inputs]
        if set(feed) != set(names):
            raise InputError(f"feed has {sorted(feed)}, expected {sorted(names)}")
        axes: dict[str, int] = {}
        for spec in self.inputs:
            for axis, size in spec.check(feed[spec.name]).items():
                if axes.setdefault(axis, size) != size:
                    raise InputError(
                        f"{spec.name}: axis {axis!r} has size {size}, another input has {axes[axis]}"
                    )
        return axes
