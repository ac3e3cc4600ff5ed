"""Turn interleaved rotary pairs (2k, 2k+1) into half-rotation pairs (k, k + D/2).

The channels of a head are permuted so that the first halves of all pairs come first. Scores are dot
products over the channels of a head, so permuting the query and key weights alike changes nothing, and
the rotation needs no strided gather: one split, one concatenation. The tables get a row for the class
token (cosine 1, sine 0), so that it need not be cut off and put back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import QKVProjection, RotaryEmbedding
from pargo_export.model.vit_tower import VitAttention
from pargo_export.rewrite.rewrite import Rewrite, set_parameter, tower_blocks

__all__ = ["HALF_ROTATION_ROPE", "HalfRotationEmbedding"]


class HalfRotationEmbedding(nn.Module):
    """Rotate channel k against channel k + D/2; the class token's row turns by zero."""

    cos: Tensor
    signed_sin: Tensor

    def __init__(self, rope: RotaryEmbedding) -> None:
        super().__init__()
        cos, sin = rope.cos[:, ::2], rope.sin[:, ::2]  # one angle a pair: [N, D/2]
        self.register_buffer("cos", _with_class_row(torch.cat([cos, cos], dim=-1), 1.0), persistent=False)
        self.register_buffer(
            "signed_sin", _with_class_row(torch.cat([-sin, sin], dim=-1), 0.0), persistent=False
        )

    def forward(self, heads: Tensor) -> Tensor:
        """`[B, H, 1+N, D]` -> same shape."""
        first, second = heads.chunk(2, dim=-1)
        return heads * self.cos + torch.cat([second, first], dim=-1) * self.signed_sin


def _with_class_row(table: Tensor, value: float) -> Tensor:
    return torch.cat([torch.full_like(table[:1], value), table])


def _permute_heads(rows: Tensor, num_heads: int) -> Tensor:
    """Even channels of every head first, then odd ones; `rows` is `[H*D, ...]`."""
    heads = rows.unflatten(0, (num_heads, -1, 2))  # [H, D/2, 2, ...]
    return heads.transpose(1, 2).flatten(0, 2)


def _apply(model: VisualFrontEnd) -> int:
    count = 0
    shared: HalfRotationEmbedding | None = None  # one table for all blocks: they turn by the same angles
    for block in tower_blocks(model):
        attention = block.attention
        if isinstance(attention, VitAttention) or not isinstance(attention.rope, RotaryEmbedding):
            continue
        if not isinstance(attention.qkv, QKVProjection):
            continue
        for projection in (attention.qkv.query, attention.qkv.key):
            set_parameter(projection, "weight", _permute_heads(projection.weight, attention.num_heads))
            if projection.bias is not None:
                set_parameter(projection, "bias", _permute_heads(projection.bias, attention.num_heads))
        shared = shared or HalfRotationEmbedding(attention.rope)
        attention.rope = shared
        count += 1
    return count


HALF_ROTATION_ROPE = Rewrite(
    name="half-rotation-rope",
    summary="rotate halves of a head instead of interleaved pairs, by permuting the q/k weights",
    why_exact="a dot product does not depend on the order of its terms",
    apply=_apply,
    acts_on="encoder",
)
