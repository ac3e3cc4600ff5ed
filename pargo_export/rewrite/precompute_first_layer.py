"""Compute the first query layer up to its cross-attention queries once, at export.

Until the first cross-attention nothing depends on the image: query tokens, positions, the first
self-attention and the first cross-attention's query projection are functions of learned constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import QueryProjector
from pargo_export.rewrite.rewrite import Rewrite, cross_attentions, query_layers

__all__ = ["PRECOMPUTE_FIRST_LAYER", "Precomputed"]


class Precomputed(nn.Module):
    """A constant in place of a computation; arguments are ignored."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach(), persistent=False)

    def forward(self, *_: Any) -> Tensor:
        """Return `[1, Q, C]`."""
        return self.value


@torch.no_grad()
def _apply(model: VisualFrontEnd) -> int:
    projector = model.projector
    if not isinstance(projector, QueryProjector) or isinstance(projector.embedding, Precomputed):
        return 0
    first = query_layers(model)[0]
    cross = cross_attentions(model)[0]  # layer 0 always has one
    hidden = first.self_attention(projector.embedding())
    projector.embedding = Precomputed(hidden)
    first.self_attention = nn.Identity()
    cross.query = Precomputed(cross.query(hidden))
    return 1


PRECOMPUTE_FIRST_LAYER = Rewrite(
    name="precompute-first-layer",
    summary="compute the first query layer up to its cross-attention queries at export",
    why_exact="it depends on learned constants only",
    apply=_apply,
    acts_on="projector",
)
