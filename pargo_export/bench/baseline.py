"""What all baselines share: pictures prepared by the bundle's preprocessing, and how errors of libraries are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pargo_export.bench.subject import LoadedSubject
from pargo_export.bundle import Bundle
from pargo_export.preprocessing import preprocess
from pargo_export.runtime.runner import Array

__all__ = ["Baseline", "first_line", "largest_batch"]


class Baseline(LoadedSubject):
    """A baseline of a bundle; see `open_baseline`.

    Args:
        bundle: The bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._spec = bundle.manifest.preprocessing
        self._input_size = bundle.manifest.model.input_size
        self.max_batch = largest_batch(bundle)

    def preprocess(self, pictures: Sequence[bytes]) -> Array:
        """Decode, fit and normalise, as the runtime does: float32 `[B, 3, H, W]`."""
        return preprocess(pictures, self._spec)

    def _warm_up(self) -> None:
        """Run one image of zeros."""
        self.run(np.zeros((1, 3, *self._input_size), np.float32))


def largest_batch(bundle: Bundle) -> int:
    """Return the largest batch of any variant of the whole model: no more is asked of a baseline."""
    return max(
        variant.max_batch for variant in bundle.manifest.variants.values() if variant.component == "all"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something, else its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
