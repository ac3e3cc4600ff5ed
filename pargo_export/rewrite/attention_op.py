"""Attention as the standard operator `Attention` of ONNX opset 23."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pargo_export.config import ProjectorConfig
from pargo_export.model.attention import attend, merge_heads, split_heads, statistics_dtype
from pargo_export.model.masks import additive_mask, self_attention_keep
from pargo_kernels.reference import partial_global_attention

__all__ = ["ATTENTION_OPSET", "OperatorCross", "OperatorSelf", "OperatorTower"]

ATTENTION_OPSET = 23
_ONNX_FLOAT = 1  # onnx.TensorProto.FLOAT: the softmax runs in float32 whatever the inputs are


def attention_node(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None
) -> Tensor:
    """Emit one `Attention` node during export; compute the same in PyTorch otherwise.

    Args:
        query: `[B or 1, H, Q, D]`.
        key: `[B, H, N, D]`.
        value: `[B, H, N, D]`.
        scale: Factor on the scores.
        mask: Additive, broadcastable to `[B, H, Q, N]`.
    """
    if not torch.onnx.is_in_onnx_export():
        return attend(query, key, value, scale, mask)
    if query.shape[0] == 1:  # learned constants: the operator wants equal batches
        query = query.expand(key.shape[0], -1, -1, -1)
    attributes: dict[
        str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
    ]
    attributes = {"scale": scale}
    if statistics_dtype(query.dtype) != query.dtype:
        attributes["softmax_precision"] = _ONNX_FLOAT
    inputs = (query, key, value) if mask is None else (query, key, value, mask)
    return torch.onnx.ops.symbolic(
        "Attention", inputs, attrs=attributes, dtype=query.dtype, shape=query.shape, version=ATTENTION_OPSET
    )


class OperatorTower(nn.Module):
    """Dense attention of the tower."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, H, N, D]` each -> `[B, H, N, D]`."""
        return attention_node(query, key, value, self.scale)


class OperatorCross(nn.Module):
    """Windows by reshape, global rows by `Attention`."""

    def __init__(self, config: ProjectorConfig, scale: float) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, scale
        self.num_partial, self.num_global = config.num_partial_tokens, config.num_global_tokens

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        partial_query, global_query = query[:, : self.num_partial], query[:, self.num_partial :]
        parts = []
        if self.num_partial:
            parts.append(
                partial_global_attention(
                    partial_query,
                    key,
                    value,
                    num_heads=self.num_heads,
                    num_partial=self.num_partial,
                    num_global=0,
                    scale=self.scale,
                )
            )
        if self.num_global:
            heads = [split_heads(tokens, self.num_heads) for tokens in (global_query, key, value)]
            parts.append(merge_heads(attention_node(heads[0], heads[1], heads[2], self.scale)))
        return torch.cat(parts, dim=1)


class OperatorSelf(nn.Module):
    """One `Attention` a block; a cascaded window is an additive mask on the partial block."""

    mask: Tensor | None

    def __init__(self, config: ProjectorConfig, scale: float, window: int | None, like: Tensor) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, scale
        self.sizes = [config.num_partial_tokens, config.num_global_tokens]
        mask = None
        if window is not None and self.sizes[0]:
            mask = torch.from_numpy(additive_mask(self_attention_keep(self.sizes[0], 0, window))).to(like)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, Q, C]` each -> `[B, Q, C]`."""
        blocks = zip(*(torch.split(tokens, self.sizes, dim=1) for tokens in (query, key, value)), strict=True)
        parts = []
        for size, mask, block in zip(self.sizes, (self.mask, None), blocks, strict=True):
            if size:
                heads = [split_heads(tokens, self.num_heads) for tokens in block]
                parts.append(merge_heads(attention_node(heads[0], heads[1], heads[2], self.scale, mask)))
        return torch.cat(parts, dim=1)
