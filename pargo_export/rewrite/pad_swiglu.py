"""Zero-pad the hidden width of the SwiGLU to a multiple of 64.

EVA02-L's hidden width is 2730: not a multiple of 8, so tensor cores run its matrix products 2 to 4 times
slower than at 2752. Zero rows of `w1`, `w2` make the padded channels `silu(0) * 0 = 0`, and zero columns
of `w3` ignore them. The LayerNorm between runs over the true width n: with m = 1 on true channels, 0 on padded ones

    mean = sum(x) / n                        the padded channels add 0
    var  = sum(((x - mean) m)^2) / n         and here too

Subtracting the p mean^2 that padded channels would add is cheaper by a product, but rounding can make that
difference negative where the channels are nearly alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.model.attention import statistics_dtype
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import GateUp
from pargo_export.rewrite.rewrite import Rewrite, set_parameter, swiglus

__all__ = ["ALIGNMENT", "PAD_SWIGLU", "PaddedLayerNorm"]

ALIGNMENT = 64  # measured: 2736 (16), 2752 (64) and 2816 (256) are alike; 64 also suits 8-bit matrix units


class PaddedLayerNorm(nn.Module):
    """LayerNorm over the first `width` channels of a zero-padded axis; padded channels stay zero."""

    true_channels: Tensor

    def __init__(self, norm: nn.LayerNorm, padding: int) -> None:
        super().__init__()
        self.width, self.eps = norm.normalized_shape[0], norm.eps
        self.weight = nn.Parameter(functional.pad(norm.weight.detach(), (0, padding)), requires_grad=False)
        self.bias = nn.Parameter(functional.pad(norm.bias.detach(), (0, padding)), requires_grad=False)
        true_channels = functional.pad(torch.ones_like(norm.weight), (0, padding))
        self.register_buffer("true_channels", true_channels, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, width + padding]` -> same shape; statistics in at least float32."""
        values = tokens.to(statistics_dtype(tokens.dtype))
        mean = values.sum(dim=-1, keepdim=True) / self.width
        centred = (values - mean) * self.true_channels.to(values.dtype)
        variance = (centred * centred).sum(dim=-1, keepdim=True) / self.width
        normalised = (centred * torch.rsqrt(variance + self.eps)).to(tokens.dtype)
        return normalised * self.weight + self.bias


def _pad_rows(linear: nn.Linear, padding: int) -> None:
    set_parameter(linear, "weight", functional.pad(linear.weight, (0, 0, 0, padding)))
    set_parameter(linear, "bias", functional.pad(linear.bias, (0, padding)))
    linear.out_features += padding


def _apply(model: VisualFrontEnd) -> int:
    count = 0
    for mlp in swiglus(model):
        if not isinstance(mlp.norm, nn.LayerNorm) or not isinstance(mlp.gate_up, GateUp):
            continue
        padding = -mlp.norm.normalized_shape[0] % ALIGNMENT
        if not padding:
            continue
        _pad_rows(mlp.gate_up.gate, padding)
        _pad_rows(mlp.gate_up.up, padding)
        set_parameter(mlp.down, "weight", functional.pad(mlp.down.weight, (0, padding)))
        mlp.down.in_features += padding
        mlp.norm = PaddedLayerNorm(mlp.norm, padding)
        count += 1
    return count


PAD_SWIGLU = Rewrite(
    name="pad-swiglu",
    summary=f"zero-pad the SwiGLU hidden width to a multiple of {ALIGNMENT}, statistics over the true width",
    why_exact="padded channels are zero, and the LayerNorm statistics leave them out",
    apply=_apply,
    acts_on="encoder",
)
