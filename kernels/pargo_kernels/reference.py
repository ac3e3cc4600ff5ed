"""What the fused attention computes, mask-free, in plain PyTorch.

Both functions take tokens before they are split into heads and return them merged, so that a fused
kernel can read and write token-major memory without transposes. Softmax runs in at least float32.
No score outside a partial token's window is ever computed. The maths is in `kernels/README.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["block_diagonal_attention", "partial_global_attention"]


def partial_global_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
) -> Tensor:
    """Cross-attention in which partial query i reads keys `[i*W, (i+1)*W)` and global queries read all.

    Args:
        query: `[B or 1, Q, H*D]`, the P partial queries first, then the G global ones.
        key: `[B, N, H*D]`, N a multiple of P; W = N / P.
        value: `[B, N, H*D]`.
        num_heads: H.
        num_partial: P, may be 0.
        num_global: G, may be 0.
        scale: Factor on the scores; 1 is not multiplied.

    Returns:
        `[B, Q, H*D]`.
    """
    queries, keys, values = (_split_heads(tokens, num_heads) for tokens in (query, key, value))
    parts = []
    if num_partial:
        windows = (num_partial, key.shape[1] // num_partial)
        partial_query = queries[:, :, :num_partial].unsqueeze(-1)  # [B, H, P, D, 1]
        scores = (keys.unflatten(2, windows) @ partial_query).squeeze(-1)  # [B, H, P, W]
        weights = _softmax(scores, scale).unsqueeze(-2)  # [B, H, P, 1, W]
        parts.append((weights @ values.unflatten(2, windows)).squeeze(-2))  # [B, H, P, D]
    if num_global:
        parts.append(_dense(queries[:, :, num_partial:], keys, values, scale))
    return _merge_heads(parts)


def block_diagonal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    partial_window: int = 0,
) -> Tensor:
    """Self-attention in which partial tokens see partial tokens and global tokens see global tokens.

    Args:
        query: `[B, Q, H*D]`, the P partial tokens first, then the G global ones.
        key: `[B, Q, H*D]`.
        value: `[B, Q, H*D]`.
        num_heads: H.
        num_partial: P, may be 0.
        num_global: G, may be 0.
        scale: Factor on the scores; 1 is not multiplied.
        partial_window: Odd number of neighbouring partial tokens, centred on itself, that a partial token
            sees; 0 means all of them.

    Returns:
        `[B, Q, H*D]`.
    """
    blocks = [
        _split_heads(tokens, num_heads).split([num_partial, num_global], dim=2)
        for tokens in (query, key, value)
    ]
    (query_p, query_g), (key_p, key_g), (value_p, value_g) = blocks
    parts = []
    if num_partial:
        parts.append(_dense(query_p, key_p, value_p, scale, _far(num_partial, partial_window, query.device)))
    if num_global:
        parts.append(_dense(query_g, key_g, value_g, scale))
    return _merge_heads(parts)


def _far(num_partial: int, partial_window: int, device: torch.device) -> Tensor | None:
    """`[P, P]`, true where two partial tokens do not see each other; `None` if all do."""
    if not partial_window or partial_window // 2 >= num_partial - 1:
        return None
    index = torch.arange(num_partial, device=device)
    return (index[:, None] - index[None, :]).abs() > partial_window // 2


def _dense(query: Tensor, key: Tensor, value: Tensor, scale: float, hidden: Tensor | None = None) -> Tensor:
    scores = query @ key.transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return _softmax(scores, scale) @ value


def _softmax(scores: Tensor, scale: float) -> Tensor:
    if scale != 1.0:
        scores = scores * scale
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores.to(at_least_float32), dim=-1).to(scores.dtype)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merge_heads(parts: list[Tensor]) -> Tensor:
    heads = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return heads.transpose(1, 2).flatten(-2)
