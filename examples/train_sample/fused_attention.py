"""The reference writes attention out, to be read; training replaces the core by PyTorch's fused one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.model.attention import merge_heads, split_heads
from pargo_export.model.masks import cross_attention_keep, self_attention_keep
from pargo_export.model.projector import CrossCore, SelfCore
from pargo_export.model.tower import TowerCore

__all__ = ["attend_float32", "fuse_attention"]


def fuse_attention(model: nn.Module, num_image_tokens: int) -> None:
    """Replace every attention core of `model` in place. Cores have no weights, so a state dict stays the same."""
    for module in list(model.modules()):
        core = getattr(module, "core", None)
        if isinstance(core, TowerCore):
            module.core = _Fused(core.scale)
        elif isinstance(core, SelfCore):
            keep = self_attention_keep(core.num_partial, core.num_global, core.window)
            module.core = _FusedHeads(core.scale, core.num_heads, torch.from_numpy(keep))
        elif isinstance(core, CrossCore):
            keep = cross_attention_keep(core.num_partial, core.num_global, num_image_tokens)
            module.core = _FusedHeads(core.scale, core.num_heads, torch.from_numpy(keep))


def attend_float32(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float) -> Tensor:
    """Fused attention in float32 under autocast too: on CPUs its backward pass in bfloat16 takes three times as long.

    Args:
        query: `[B, H, Q, D]`.
        key: `[B, H, N, D]`.
        value: `[B, H, N, D]`.
        keep: bool, true where seen, or `None`.
        scale: Of the scores.
    """
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=keep, scale=scale
        )


class _Fused(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, H, N, D]` each -> `[B, H, N, D]`."""
        return attend_float32(query, key, value, None, self.scale)


class _FusedHeads(nn.Module):
    def __init__(self, scale: float, num_heads: int, keep: Tensor) -> None:
        super().__init__()
        self.scale, self.num_heads = scale, num_heads
        # No mask at all where everything is seen: a Q-Former.
        self.keep = None if bool(keep.all()) else keep

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        query, key, value = (split_heads(tokens, self.num_heads) for tokens in (query, key, value))
        return merge_heads(attend_float32(query, key, value, self.keep, self.scale))
