"""What a program computes, and which of several equal ways it takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from pargo_export.bundle import Component, InputKind
from pargo_export.preprocessing import PreprocessSpec

__all__ = ["ProgramOptions", "ProgramSpec"]


@dataclass(frozen=True)
class ProgramSpec:
    """What a variant computes.

    Attributes:
        component: Which part of the model.
        input: `float`: the graph takes normalised pixels; `uint8`: the patch weights normalise.
        dtype: Float type of weights and activations, float16 or bfloat16.
        rewrites: Rewrites that made the weights.
        preprocessing: Mean and deviation, by which uint8 pixels are normalised for a `float` variant.
    """

    component: Component
    input: InputKind
    dtype: torch.dtype
    rewrites: Collection[str]
    preprocessing: PreprocessSpec

    def softmax_scale(self, head_width: int) -> float:
        """Return the factor on attention scores; 1 where the weights hold it."""
        return 1.0 if "fold-softmax-scale" in self.rewrites else head_width**-0.5


@dataclass(frozen=True)
class ProgramOptions:
    """Ways to compute that differ in speed, and in rounding.

    Attributes:
        accumulate_in_product: Let the GEMMs that write to a residual stream add to it in place, and the norms add
            the biases (`residual.py`).
        rotate_in_place: Turn query and key of the tower in the result of their product; else in a copy.
        widen_projector: Compute the products of the query layers in the float type even where the variant has 8-bit
            weights for them: more exact, and faster, because they are so small that quantizing costs more than
            it saves.
        fused_projector_rows: Up to so many queries, of all images, the query layers are computed by
            `fused_projector.py`; above, their products are large enough for the library's own.
    """

    accumulate_in_product: bool = True
    rotate_in_place: bool = True
    widen_projector: bool = True
    fused_projector_rows: int = 1216
