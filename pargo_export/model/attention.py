"""Scaled dot-product attention, written out."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend", "merge_heads", "softmax", "split_heads", "statistics_dtype"]


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which softmax and LayerNorm statistics are computed: at least float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, computed in at least float32, returned in the dtype of `scores`."""
    return torch.softmax(scores.to(statistics_dtype(scores.dtype)), dim=-1).to(scores.dtype)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """`[B, N, H*D]` -> `[B, H, N, D]`."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """`[B, H, N, D]` -> `[B, N, H*D]`."""
    return heads.transpose(1, 2).flatten(-2)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Return `softmax(query @ key^T * scale + mask) @ value`.

    Args:
        query: `[B, H, Q, D]`.
        key: `[B, H, N, D]`.
        value: `[B, H, N, D]`.
        scale: Usually `D ** -0.5`; 1 is not multiplied, so that a folded scale leaves no node behind.
        mask: Additive, broadcastable to `[B, H, Q, N]`.
    """
    scores = query @ key.transpose(-1, -2)
    if scale != 1.0:
        scores = scores * scale
    if mask is not None:
        scores = scores + mask
    return softmax(scores) @ value
