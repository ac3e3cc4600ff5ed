"""Fold the affine part of `ln_vision` into the projections that read the image features.

    A (g * x + b) + c  =  (A diag(g)) x + (A b + c)

What remains of `ln_vision` is the normalisation itself, computed once; its output no longer is
`image_features`, so the features cannot be a graph output of their own.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import GroupProjector, KeyValueProjection
from pargo_export.rewrite.rewrite import Rewrite, cross_attentions, set_parameter, zeros_like_rows

__all__ = ["FOLD_OUTPUT_NORM"]


def _fold_into(linear: nn.Linear, gain: Tensor, offset: Tensor) -> None:
    bias = zeros_like_rows(linear.weight) if linear.bias is None else linear.bias
    set_parameter(linear, "bias", linear.weight @ offset + bias)
    set_parameter(linear, "weight", linear.weight * gain)


def _readers(model: VisualFrontEnd) -> list[nn.Linear]:
    if isinstance(model.projector, GroupProjector):
        first = model.projector.llm_projection
        return [cast("nn.Linear", first[0] if isinstance(first, nn.Sequential) else first)]
    projections = [cross.key_value for cross in cross_attentions(model)]
    separate = [both for both in projections if isinstance(both, KeyValueProjection)]
    return [linear for both in separate for linear in (both.key, both.value)]


def _apply(model: VisualFrontEnd) -> int:
    norm = model.output_norm
    readers = _readers(model)
    if not norm.elementwise_affine or not readers:
        return 0
    groups = model.projector.tokens_per_group if isinstance(model.projector, GroupProjector) else 1
    for linear in readers:
        _fold_into(linear, norm.weight.repeat(groups), norm.bias.repeat(groups))
    model.output_norm = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    return len(readers)


FOLD_OUTPUT_NORM = Rewrite(
    name="fold-output-norm",
    summary="fold the affine part of ln_vision into the projections that read the image features",
    why_exact="an affine map followed by a linear map is one affine map",
    apply=_apply,
    acts_on="whole",
)
