"""The one table of numerical tolerances: every number that a test forgives, and why."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOLERANCES", "Tolerance"]


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from what is expected.

    Attributes:
        value: Largest absolute difference that passes.
        reason: Where the difference comes from.
    """

    value: float
    reason: str


TOLERANCES = {
    "preprocess-lossless": Tolerance(1e-6, "same bytes; float32 rounding of (x / 255 - mean) / std"),
    "preprocess-jpeg-levels": Tolerance(2, "8-bit levels by which JPEG decoders differ"),
    "preprocess-jpeg-photo-levels": Tolerance(
        3, "mean 8-bit levels that JPEG at quality 95 loses of a photograph"
    ),
    "golden-reference": Tolerance(
        5e-5, "float32 noise of the official outputs is 1.1e-5, the smallest mistake costs 1e-4"
    ),
    "runtime-batching": Tolerance(
        1e-5, "float32 sums in another order, by batch size or component; measured 2.0e-6"
    ),
    "runtime-uint8-graph": Tolerance(
        5e-5, "normalisation folded into the patch weights, float32; measured 1.4e-5"
    ),
}
