"""The EVA-02 CLIP vision tower: patches in, image features out.

Source: arXiv 2303.11331 and the official `eva_vit.py`. What is easy to get wrong, and is pinned by the
golden vectors: sub-LayerNorm before the output projection and inside the SwiGLU, no key bias, rotary
positions on consecutive pairs (2k, 2k+1) with rows in the first half of a head and columns in the
second, positions rescaled to the trained grid, the class token not rotated, epsilon 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.config import VisionConfig
from pargo_export.model.attention import attend, merge_heads, split_heads

__all__ = [
    "ClassAndPosition",
    "GateUp",
    "QKVProjection",
    "RotaryEmbedding",
    "SwiGLU",
    "TowerAttention",
    "TowerBlock",
    "TowerCore",
    "VisionTower",
    "rotary_tables",
]


def rotary_tables(config: VisionConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines `[N, D]`, float32: the buffers `rope.freqs_cos` and `rope.freqs_sin`."""
    axis_dim = config.head_width // 2  # half of a head encodes the row, half the column
    frequencies = config.rope_theta ** -(torch.arange(0, axis_dim, 2).float() / axis_dim)
    position = torch.arange(config.grid_size).float()
    if config.rope_interpolate:
        position = position / config.grid_size * config.rope_grid
    angle = torch.outer(position, frequencies).repeat_interleave(2, dim=-1)  # [grid, D/2]
    rows = angle[:, None, :].expand(-1, config.grid_size, -1)
    columns = angle[None, :, :].expand(config.grid_size, -1, -1)
    angles = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return angles.cos(), angles.sin()


class RotaryEmbedding(nn.Module):
    """Rotate consecutive channel pairs of every token but the class token."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, heads: Tensor) -> Tensor:
        """`[B, H, 1+N, D]` -> same shape."""
        class_token, patches = heads[:, :, :1], heads[:, :, 1:]
        even, odd = patches[..., ::2], patches[..., 1::2]
        quarter_turn = torch.stack([-odd, even], dim=-1).flatten(-2)
        return torch.cat([class_token, patches * self.cos + quarter_turn * self.sin], dim=2)


class QKVProjection(nn.Module):
    """Three projections; keys have no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, N, C]` -> query, key, value, each `[B, N, C]`."""
        return self.query(tokens), self.key(tokens), self.value(tokens)


class TowerCore(nn.Module):
    """Dense attention between heads."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, H, N, D]` each -> `[B, H, N, D]`."""
        return attend(query, key, value, self.scale)


class TowerAttention(nn.Module):
    """Self-attention with rotary positions and a LayerNorm before the output projection (sub-LN)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv: nn.Module = QKVProjection(config.width)
        self.rope: nn.Module = RotaryEmbedding(config)
        self.core: nn.Module = TowerCore(config.head_width**-0.5)
        self.inner_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, 1+N, C]` -> `[B, 1+N, C]`."""
        query, key, value = (split_heads(part, self.num_heads) for part in self.qkv(tokens))
        context = self.core(self.rope(query), self.rope(key), value)
        return self.output(self.inner_norm(merge_heads(context)))


class GateUp(nn.Module):
    """The two input projections of a SwiGLU."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden_width)
        self.up = nn.Linear(width, hidden_width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, N, C]` -> gate and value, each `[B, N, hidden]`."""
        return self.gate(tokens), self.up(tokens)


class SwiGLU(nn.Module):
    """Gated feed-forward with a LayerNorm over its hidden width (sub-LN)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.gate_up: nn.Module = GateUp(config.width, config.hidden_width)
        self.norm: nn.Module = nn.LayerNorm(config.hidden_width, eps=config.layer_norm_eps)
        self.down = nn.Linear(config.hidden_width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, N, C]`."""
        gate, up = self.gate_up(tokens)
        return self.down(self.norm(functional.silu(gate) * up))


class TowerBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.attention = TowerAttention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, 1+N, C]` -> `[B, 1+N, C]`."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ClassAndPosition(nn.Module):
    """Put the class token in front and add the learned positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.num_patches, config.width))

    def forward(self, patches: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, 1+N, C]`."""
        class_token = self.class_token.expand(patches.shape[0], -1, -1)
        return torch.cat([class_token, patches], dim=1) + self.position


class VisionTower(nn.Module):
    """Patch embedding, class token, learned positions, blocks.

    `final_norm` and `head` exist in the official checkpoint; the projector path does not apply them.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding: nn.Module = nn.Conv2d(
            config.in_channels, config.width, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.embedding: nn.Module = ClassAndPosition(config)
        self.blocks = nn.ModuleList(TowerBlock(config) for _ in range(config.num_layers))
        self.final_norm: nn.Module | None = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.head: nn.Module | None = nn.Linear(config.width, config.head_features)

    def forward(self, tiles: Tensor) -> Tensor:
        """`[B*T, 3, S, S]`, normalised -> `[B*T, 1+N/T, C]`, class token first."""
        tokens: Tensor = self.embedding(self.patch_embedding(tiles).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens
