"""Four ways to write the projector's attention; all compute the same function.

| form           | cross-attention                              | self-attention                     |
|----------------|----------------------------------------------|------------------------------------|
| `fused`        | one node `pargo::PartialGlobalAttention`     | one node `pargo::BlockDiagonalAttention` |
| `structured`   | windows by reshape + dense rows, inlined     | two dense blocks, inlined          |
| `dense`        | the official additive mask                   | the official additive mask         |
| `attention_op` | windows by reshape + opset-23 `Attention`    | two opset-23 `Attention`           |

`attention_op` also turns the tower's attention into `Attention` nodes.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pargo_export.config import ProjectorConfig
from pargo_export.model.attention import attend, merge_heads, split_heads
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.masks import additive_mask, cross_attention_keep, self_attention_keep
from pargo_export.model.projector import CrossCore, SelfCore
from pargo_export.model.tower import TowerCore
from pargo_export.rewrite.attention_op import OperatorCross, OperatorSelf, OperatorTower
from pargo_export.rewrite.rewrite import cross_attentions, self_attentions, tower_blocks
from pargo_kernels.reference import block_diagonal_attention, partial_global_attention

__all__ = ["ATTENTION_FORMS", "AttentionForm", "set_attention_form"]

AttentionForm = Literal["fused", "structured", "dense", "attention_op"]
ATTENTION_FORMS: tuple[AttentionForm, ...] = get_args(AttentionForm)
FUNCTION_VERSION = 1


class DenseCore(nn.Module):
    """Masked attention; the mask is a constant of the graph."""

    mask: Tensor

    def __init__(self, num_heads: int, scale: float, mask: Tensor) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        query, key, value = (split_heads(tokens, self.num_heads) for tokens in (query, key, value))
        return merge_heads(attend(query, key, value, self.scale, self.mask))


class StructuredCross(nn.Module):
    """Mask-free cross-attention."""

    def __init__(self, config: ProjectorConfig, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.sizes = {
            "num_heads": config.num_heads,
            "num_partial": config.num_partial_tokens,
            "num_global": config.num_global_tokens,
        }

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        return partial_global_attention(query, key, value, **self.sizes, scale=self.scale)


class StructuredSelf(StructuredCross):
    """Mask-free block-diagonal self-attention."""

    def __init__(self, config: ProjectorConfig, scale: float, window: int | None) -> None:
        super().__init__(config, scale)
        self.window = window or 0

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, Q, C]` each -> `[B, Q, C]`."""
        return block_diagonal_attention(
            query, key, value, **self.sizes, scale=self.scale, partial_window=self.window
        )


def _function_node(
    name: str, query: Tensor, key: Tensor, value: Tensor, attributes: dict[str, Any]
) -> Tensor:
    shape = (key.shape[0], *query.shape[1:])
    node: Tensor = torch.onnx.ops.symbolic(
        f"pargo::{name}",
        (query, key, value),
        attrs=attributes,
        dtype=query.dtype,
        shape=shape,
        version=FUNCTION_VERSION,
    )
    return node


class FusedCross(StructuredCross):
    """One function node in the graph; the structured form when run by PyTorch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        if not torch.onnx.is_in_onnx_export():
            return super().forward(query, key, value)
        partial = self.sizes["num_partial"]
        window = key.shape[1] // partial if partial else 0
        attributes = {**self.sizes, "window": window, "scale": self.scale}
        return _function_node("PartialGlobalAttention", query, key, value, attributes)


class FusedSelf(StructuredSelf):
    """One function node in the graph; the structured form when run by PyTorch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, Q, C]` each -> `[B, Q, C]`."""
        if not torch.onnx.is_in_onnx_export():
            return super().forward(query, key, value)
        attributes = {**self.sizes, "window": self.window, "scale": self.scale}
        return _function_node("BlockDiagonalAttention", query, key, value, attributes)


def _dense_mask(keep: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(additive_mask(keep)).to(like)


def _floating_parameter(model: VisualFrontEnd) -> Tensor:
    """Any weight: masks take its dtype and device."""
    return next(model.parameters())


def _self_core(form: AttentionForm, model: VisualFrontEnd, core: SelfCore) -> nn.Module:
    config, like = model.config.projector, _floating_parameter(model)
    if form == "dense":
        keep = self_attention_keep(config.num_partial_tokens, config.num_global_tokens, core.window)
        return DenseCore(config.num_heads, core.scale, _dense_mask(keep, like))
    if form == "attention_op":
        return OperatorSelf(config, core.scale, core.window, like)
    return (FusedSelf if form == "fused" else StructuredSelf)(config, core.scale, core.window)


def _cross_core(form: AttentionForm, model: VisualFrontEnd, core: CrossCore) -> nn.Module:
    config = model.config.projector
    if form == "dense":
        keep = cross_attention_keep(
            config.num_partial_tokens, config.num_global_tokens, model.config.num_image_tokens
        )
        return DenseCore(config.num_heads, core.scale, _dense_mask(keep, _floating_parameter(model)))
    if form == "attention_op":
        return OperatorCross(config, core.scale)
    return (FusedCross if form == "fused" else StructuredCross)(config, core.scale)


def set_attention_form(model: VisualFrontEnd, form: AttentionForm) -> int:
    """Replace the attention cores of the reference and return how many were replaced."""
    count = 0
    if form == "attention_op":
        for block in tower_blocks(model):
            core = block.attention.core
            if isinstance(core, TowerCore):
                block.attention.core = OperatorTower(core.scale)
                count += 1
    for attention in self_attentions(model):
        if isinstance(attention.core, SelfCore):
            attention.core = _self_core(form, model, attention.core)
            count += 1
    for cross in cross_attentions(model):
        if isinstance(cross.core, CrossCore):
            cross.core = _cross_core(form, model, cross.core)
            count += 1
    return count
