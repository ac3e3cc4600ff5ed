"""What a rewrite is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import (
    CrossAttention,
    KeyValueProjection,
    QueryLayer,
    QueryProjector,
    QuerySelfProjection,
    SelfAttention,
)
from pargo_export.model.tower import SwiGLU, TowerBlock
from pargo_export.model.vit_tower import VitBlock

__all__ = [
    "Rewrite",
    "RewriteResult",
    "cross_attentions",
    "linear_from",
    "query_layers",
    "self_attentions",
    "separate_projections",
    "set_parameter",
    "swiglus",
    "tower_blocks",
    "zeros_like_rows",
]


@dataclass(frozen=True)
class Rewrite:
    """One exact transformation of the deploy module, in place.

    Attributes:
        name: Stable name for the command line and the manifest.
        summary: What it does, in one line.
        why_exact: Why the function computed stays the same.
        apply: Changes the module and returns the number of places it changed.
        acts_on: The component whose graph it changes; `whole` moves work between the two, so that neither
            can be exported alone.
    """

    name: str
    summary: str
    why_exact: str
    apply: Callable[[VisualFrontEnd], int]
    acts_on: Literal["encoder", "projector", "both", "whole"]


@dataclass(frozen=True)
class RewriteResult:
    """How often a rewrite applied.

    Attributes:
        name: Of the rewrite.
        count: Places changed; 0 means that the model has nothing it applies to.
    """

    name: str
    count: int


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a `Linear` with the given parameters (`[out, in]`, `[out]`), without initialising others."""
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def set_parameter(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Replace a parameter of `module` by a new tensor, or by `None`; the old tensor is left untouched."""
    setattr(module, name, None if value is None else nn.Parameter(value.detach(), requires_grad=False))


def tower_blocks(model: VisualFrontEnd) -> list[TowerBlock | VitBlock]:
    """The tower's blocks; a rewritten block has the same parts."""
    return cast("list[TowerBlock | VitBlock]", list(model.tower.blocks))


def swiglus(model: VisualFrontEnd) -> list[SwiGLU]:
    """The gated feed-forwards of the tower; none in CLIP and SigLIP."""
    return [block.mlp for block in tower_blocks(model) if isinstance(block.mlp, SwiGLU)]


def query_layers(model: VisualFrontEnd) -> list[QueryLayer]:
    """The projector's query layers; none for `linear` and `mlp`."""
    if not isinstance(model.projector, QueryProjector):
        return []
    return cast("list[QueryLayer]", list(model.projector.layers))


def self_attentions(model: VisualFrontEnd) -> list[SelfAttention]:
    """The self-attentions of the query layers that have not been computed away."""
    modules = [layer.self_attention for layer in query_layers(model)]
    return [module for module in modules if isinstance(module, SelfAttention)]


def cross_attentions(model: VisualFrontEnd) -> list[CrossAttention]:
    """The cross-attentions of the query layers that have one."""
    return [layer.cross_attention for layer in query_layers(model) if layer.cross_attention is not None]


def separate_projections(model: VisualFrontEnd) -> list[tuple[nn.Linear, nn.Linear, nn.Linear]]:
    """(key, value, output) of every attention of the query layers whose projections are not merged yet."""
    both = [(attention.qkv, attention.output) for attention in self_attentions(model)]
    both += [(cross.key_value, cross.output) for cross in cross_attentions(model)]
    return [
        (projection.key, projection.value, output)
        for projection, output in both
        if isinstance(projection, (QuerySelfProjection, KeyValueProjection))
    ]


def zeros_like_rows(weight: Tensor) -> Tensor:
    """A zero bias for the rows of `weight`."""
    return torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
