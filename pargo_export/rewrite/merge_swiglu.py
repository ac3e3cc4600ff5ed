"""Merge the gate and up projections of the SwiGLU (`w1 | w2`) into one."""

from __future__ import annotations

from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import GateUp
from pargo_export.rewrite.merge_qkv import merge_linears
from pargo_export.rewrite.rewrite import Rewrite, swiglus

__all__ = ["MERGE_SWIGLU", "MergedGateUp"]


class MergedGateUp(nn.Module):
    """One projection to twice the hidden width."""

    def __init__(self, parts: GateUp) -> None:
        super().__init__()
        self.merged = merge_linears([parts.gate, parts.up])

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """`[B, N, C]` -> gate and value, each `[B, N, hidden]`."""
        return self.merged(tokens).chunk(2, dim=-1)


def _apply(model: VisualFrontEnd) -> int:
    count = 0
    for mlp in swiglus(model):
        if isinstance(mlp.gate_up, GateUp):
            mlp.gate_up = MergedGateUp(mlp.gate_up)
            count += 1
    return count


MERGE_SWIGLU = Rewrite(
    name="merge-swiglu",
    summary="one projection for gate and value of the SwiGLU",
    why_exact="the rows of a matrix product are independent",
    apply=_apply,
    acts_on="encoder",
)
