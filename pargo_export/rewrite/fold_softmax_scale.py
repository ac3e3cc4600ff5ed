"""Fold the softmax scale D^-1/2 into the query projections."""

from __future__ import annotations

from typing import Protocol, cast

from torch import nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import QuerySelfProjection, SelfAttention
from pargo_export.model.tower import QKVProjection, TowerAttention
from pargo_export.model.vit_tower import VitAttention
from pargo_export.rewrite.rewrite import (
    Rewrite,
    cross_attentions,
    self_attentions,
    set_parameter,
    tower_blocks,
)

__all__ = ["FOLD_SOFTMAX_SCALE"]


class _Scaled(Protocol):
    scale: float


def _fold(query: nn.Module, core: nn.Module) -> int:
    scaled = cast("_Scaled", core)
    if scaled.scale == 1.0 or not isinstance(query, nn.Linear):
        return 0
    set_parameter(query, "weight", query.weight * scaled.scale)
    if query.bias is not None:
        set_parameter(query, "bias", query.bias * scaled.scale)
    scaled.scale = 1.0
    return 1


def _apply(model: VisualFrontEnd) -> int:
    attentions: list[TowerAttention | VitAttention | SelfAttention]
    attentions = [block.attention for block in tower_blocks(model)]
    attentions += self_attentions(model)
    count = 0
    for attention in attentions:
        if isinstance(attention.qkv, (QKVProjection, QuerySelfProjection)):
            count += _fold(attention.qkv.query, attention.core)
    for cross in cross_attentions(model):
        count += _fold(cross.query, cross.core)
    return count


FOLD_SOFTMAX_SCALE = Rewrite(
    name="fold-softmax-scale",
    summary="multiply the query projections by the softmax scale",
    why_exact="the scores are linear in the query, and rotary positions are linear too",
    apply=_apply,
    acts_on="both",
)
