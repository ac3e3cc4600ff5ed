"""The plain vision transformers of CLIP and SigLIP: patches in, image features out.

Source: arXiv 2103.00020 and 2303.15343, as `CLIPVisionModel` and `SiglipVisionModel` of `transformers` compute them.
What is easy to get wrong, and is pinned by golden vectors: CLIP normalises before the first block and has no patch bias,
its activation is x sigmoid(1.702 x); SigLIP has neither a class token nor that norm, and its GELU is the approximation by
a tanh; a convolution without padding drops pixels beyond the last whole patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.config import VitActivation, VitConfig
from pargo_export.model.attention import merge_heads, split_heads
from pargo_export.model.tower import QKVProjection, TowerCore

__all__ = ["VitAttention", "VitBlock", "VitEmbedding", "VitMlp", "VitTower"]

_QUICK_GELU_SLOPE = 1.702


class VitQKV(QKVProjection):
    """Three projections, each with a bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.key = nn.Linear(width, width)


class VitAttention(nn.Module):
    """Self-attention."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv: nn.Module = VitQKV(config.width)
        self.core: nn.Module = TowerCore(config.head_width**-0.5)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, N, C]`."""
        query, key, value = (split_heads(part, self.num_heads) for part in self.qkv(tokens))
        return self.output(merge_heads(self.core(query, key, value)))


def _activate(values: Tensor, kind: VitActivation) -> Tensor:
    """Apply the activation of a feed-forward, element by element."""
    if kind == "quick_gelu":
        return values * torch.sigmoid(_QUICK_GELU_SLOPE * values)
    return functional.gelu(values, approximate="tanh" if kind == "gelu_tanh" else "none")


class VitMlp(nn.Module):
    """Feed-forward with one hidden layer."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.width, config.hidden_width)
        self.down = nn.Linear(config.hidden_width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, N, C]`."""
        return self.down(_activate(self.up(tokens), self.activation))


class VitBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.attention = VitAttention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = VitMlp(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, N, C]`."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class VitEmbedding(nn.Module):
    """Put the class token in front, if there is one, and add the learned positions."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(config.width)) if config.has_class_token else None
        self.position = nn.Parameter(torch.zeros(config.has_class_token + config.num_patches, config.width))

    def forward(self, patches: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, 1+N, C]`, or `[B, N, C]` without a class token."""
        if self.class_token is not None:
            class_token = self.class_token.expand(patches.shape[0], 1, -1)
            patches = torch.cat([class_token, patches], dim=1)
        return patches + self.position


class VitTower(nn.Module):
    """Patch embedding, positions, the norm in front of CLIP's blocks, blocks, and where asked for the last norm."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.patch_embedding: nn.Module = nn.Conv2d(
            config.in_channels,
            config.width,
            kernel_size=config.patch_size,
            stride=config.patch_size,
            bias=config.kind == "siglip",
        )
        self.embedding: nn.Module = VitEmbedding(config)
        self.pre_norm: nn.Module = nn.Identity()
        if config.kind == "clip":
            self.pre_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(VitBlock(config) for _ in range(config.num_layers))
        self.final_norm: nn.Module = nn.Identity()
        if config.has_final_norm:
            self.final_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, tiles: Tensor) -> Tensor:
        """`[B*T, 3, S, S]`, normalised -> `[B*T, 1+N/T, C]`, class token first, or `[B*T, N/T, C]` without one."""
        tokens: Tensor = self.embedding(self.patch_embedding(tiles).flatten(2).transpose(1, 2))
        tokens = self.pre_norm(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.final_norm(tokens)
        return normalised
