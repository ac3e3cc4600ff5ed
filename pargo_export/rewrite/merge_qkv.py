"""Merge query, key and value projections of a self-attention into one, in the tower and in the query layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import QuerySelfProjection, SelfAttention
from pargo_export.model.tower import QKVProjection, TowerAttention
from pargo_export.model.vit_tower import VitAttention
from pargo_export.rewrite.rewrite import Rewrite, linear_from, self_attentions, tower_blocks, zeros_like_rows

__all__ = ["MERGE_QKV", "MergedQKV", "merge_linears"]


class MergedQKV(nn.Module):
    """One projection to 3C channels."""

    def __init__(self, parts: list[nn.Linear]) -> None:
        super().__init__()
        self.merged = merge_linears(parts)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """`[B, N, C]` -> query, key, value, each `[B, N, C]`."""
        return self.merged(tokens).chunk(3, dim=-1)


def merge_linears(parts: list[nn.Linear]) -> nn.Linear:
    """Return one linear with the outputs of `parts` side by side; missing biases become zeros if any has one."""
    weight = torch.cat(tuple(part.weight for part in parts))
    if all(part.bias is None for part in parts):
        return linear_from(weight, None)
    biases = [zeros_like_rows(part.weight) if part.bias is None else part.bias for part in parts]
    return linear_from(weight, torch.cat(tuple(biases)))


def _apply(model: VisualFrontEnd) -> int:
    attentions: list[TowerAttention | VitAttention | SelfAttention]
    attentions = [block.attention for block in tower_blocks(model)]
    attentions += self_attentions(model)
    count = 0
    for attention in attentions:
        qkv = attention.qkv
        if isinstance(qkv, (QKVProjection, QuerySelfProjection)):
            attention.qkv = MergedQKV([qkv.query, qkv.key, qkv.value])
            count += 1
    return count


MERGE_QKV = Rewrite(
    name="merge-qkv",
    summary="one projection for query, key and value of each self-attention",
    why_exact="the rows of a matrix product are independent",
    apply=_apply,
    acts_on="both",
)
