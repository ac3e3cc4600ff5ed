"""Fold image normalisation into the patch convolution, so that the graph takes uint8 pixels.

    conv(W, b)((x / 255 - mean) / std)  =  conv(W', b')(x)
    W'[o, c] = W[o, c] / (255 std[c])      b'[o] = b[o] - sum_c sum_ij W[o, c, i, j] mean[c] / std[c]

Exact because the convolution has no padding: every output sees only real pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.rewrite import Rewrite

__all__ = ["PixelPatchEmbedding", "fold_normalization"]


class PixelPatchEmbedding(nn.Module):
    """Patch convolution on raw pixels 0..255."""

    def __init__(self, convolution: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        weight = convolution.weight.detach().double()
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = torch.einsum("ochw,c->o", weight, offset)
        bias = torch.zeros_like(shift) if convolution.bias is None else convolution.bias.detach().double()
        self.stride = cast("tuple[int, int]", convolution.stride)
        self.weight = nn.Parameter(
            (weight * scale[:, None, None]).to(convolution.weight), requires_grad=False
        )
        self.bias = nn.Parameter((bias - shift).to(convolution.weight), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 `[B, 3, S, S]` -> `[B, C, S/p, S/p]` in the dtype of the weights."""
        return nn.functional.conv2d(pixels.to(self.weight.dtype), self.weight, self.bias, self.stride)


def fold_normalization(mean: Sequence[float], std: Sequence[float]) -> Rewrite:
    """Return the rewrite for the given per-channel mean and standard deviation (of pixels in 0..1)."""

    def apply(model: VisualFrontEnd) -> int:
        convolution = model.tower.patch_embedding
        if not isinstance(convolution, nn.Conv2d):
            return 0
        model.tower.patch_embedding = PixelPatchEmbedding(convolution, mean, std)
        return 1

    return Rewrite(
        name="fold-normalization",
        summary="fold image normalisation into the patch convolution; the graph takes uint8 pixels",
        why_exact="normalisation is affine per channel and the convolution has no padding",
        apply=apply,
        acts_on="encoder",
    )
