"""The two attentions as PyTorch operators, `torch.ops.pargo.*`, registered when this module is imported.

    pargo::partial_global_attention(query, key, value, *, num_heads, num_partial, num_global, scale)
    pargo::block_diagonal_attention(query, key, value, *, num_heads, num_partial, num_global, scale,
                                    partial_window)

An operator is opaque: `torch.compile` and `torch.export` keep it as one node instead of tracing into it, and
when it runs, `pargo_kernels.dispatch` picks the Triton kernel or the reference. The operators are for
inference: they have no gradient formula, and `backward()` through one raises PyTorch's error. To train,
call `pargo_kernels.reference`. `pargo_export.graph.torch_ops` translates both to ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pargo_kernels import dispatch

__all__ = ["block_diagonal_attention", "partial_global_attention"]


# Concrete annotations below are what PyTorch infers the operators' schemas from.
@torch.library.custom_op("pargo::partial_global_attention", mutates_args=())
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
    """Cross-attention, query `[B or 1, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
    return dispatch.partial_global_attention(
        query,
        key,
        value,
        num_heads=num_heads,
        num_partial=num_partial,
        num_global=num_global,
        scale=scale,
    )


@torch.library.custom_op("pargo::block_diagonal_attention", mutates_args=())
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
    """Self-attention, `[B, Q, C]` each -> `[B, Q, C]`."""
    return dispatch.block_diagonal_attention(
        query,
        key,
        value,
        num_heads=num_heads,
        num_partial=num_partial,
        num_global=num_global,
        scale=scale,
        partial_window=partial_window,
    )


@partial_global_attention.register_fake
@block_diagonal_attention.register_fake
def _shape(query: Tensor, key: Tensor, value: Tensor, **_: float) -> Tensor:  # noqa: ARG001 - the signature
    """Shape and dtype of the result: the query's, with the keys' batch."""
    return query.new_empty((key.shape[0], *query.shape[1:]))
