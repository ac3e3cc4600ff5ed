"""Fold the softmax scale D^-1/2 into the query projections."""

from __future__ import annotations

from torch import nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.rewrite import Rewrite, set_parameter

__all__ = ["FOLD_SOFTMAX_SCALE"]


def _fold(query: nn.Module, core: nn.Module) -> int:
    scale = getattr(core, "scale", 1.0)
    if scale == 1.0 or not isinstance(query, nn.Linear):
        return 0
    set_parameter(query, "weight", query.weight * scale)
    if query.bias is not None:
        set_parameter(query, "bias", query.bias * scale)
    core.scale = 1.0
    return 1


def _apply(model: VisualFrontEnd) -> int:
    count = sum(_fold(block.attention.qkv.query, block.attention.core) for block in model.tower.blocks)
    for layer in getattr(model.projector, "layers", ()):
        count += _fold(layer.self_attention.qkv.query, layer.self_attention.core)
        if layer.cross_attention is not None:
            count += _fold(layer.cross_attention.query, layer.cross_attention.core)
    return count


FOLD_SOFTMAX_SCALE = Rewrite(
    name="fold-softmax-scale",
    summary="multiply the query projections by the softmax scale",
    why_exact="the scores are linear in the query, and rotary positions are linear too",
    apply=_apply,
)
