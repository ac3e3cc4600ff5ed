"""Self-attention of ParGo in one launch: checks, how the work is cut, and the launch.

The kernel is in `triton_block_diagonal_kernel.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pargo_kernels.attention_inputs import (
    cdiv,
    explain_attention_inputs,
    most_rows,
    next_power_of_2,
    padded_head_dim,
    token_strides,
)
from pargo_kernels.triton_attend import LOG2_E
from pargo_kernels.triton_block_diagonal_kernel import block_diagonal_kernel
from pargo_kernels.triton_common import KernelCall
from pargo_kernels.triton_dependent import dependent_launch
from pargo_kernels.triton_device import INTERPRETED, device_guard

__all__ = [
    "Tiles",
    "block_diagonal_attention",
    "block_diagonal_kernel",
    "choose_tiles",
    "explain_block_diagonal_attention",
    "launch_arguments",
]


@dataclass(frozen=True)
class Tiles:
    """How the work is cut.

    Attributes:
        block_query: Queries of one program, a power of two, at least 16.
        block_key: Keys of one step, a power of two, at least 16.
        num_warps: Warps of one program.
        num_stages: Key blocks in flight.
    """

    block_query: int
    block_key: int
    num_warps: int
    num_stages: int


def explain_block_diagonal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    partial_window: int = 0,
) -> str | None:
    """Say why the kernel cannot take this input, or return `None` if it can.

    Takes what `block_diagonal_attention` takes. The sentence says what was found, what is expected and how to
    mend it.
    """
    reason = explain_attention_inputs(
        query, key, value, num_heads=num_heads, num_partial=num_partial, num_global=num_global, scale=scale
    )
    if reason:
        return reason
    if query.shape[1] != key.shape[1]:
        return f"query has {query.shape[1]} tokens and key {key.shape[1]}, expected the same tokens; slice the longer"
    if partial_window < 0:
        return f"partial_window is {partial_window}, expected an odd number, or 0 for no window"
    return None


def choose_tiles(*, num_partial: int, num_global: int, head_dim: int, dtype: torch.dtype) -> Tiles:
    """Cut the queries into blocks of 64, fewer for wide heads.

    Queries of a block share its keys. One image of 304 tokens and 8 heads is only 48 such blocks, but smaller ones
    that would occupy more of the GPU are slower all the same: 7.1 us with 16 queries, 6.2 with 32, 5.6 with 64 on
    an H100. A step takes 64 keys, fewer where 64 rows of a head exceed 16 KiB: all stages share 99 KiB.

    Args:
        num_partial: P.
        num_global: G.
        head_dim: D.
        dtype: Of the inputs.
    """
    row_bytes = padded_head_dim(head_dim) * dtype.itemsize
    block_key = max(16, min(64, 16384 // row_bytes, next_power_of_2(max(num_partial, num_global))))
    block_query = max(16, min(most_rows(head_dim, dtype), next_power_of_2(max(num_partial, num_global))))
    if dtype == torch.float32:
        block_key = min(block_key, 32)
    return Tiles(block_query, block_key, num_warps=4, num_stages=2)


def launch_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    partial_window: int = 0,
    tiles: Tiles | None = None,
) -> KernelCall:
    """Return how to launch the kernel; only shapes, strides and dtypes of the tensors matter.

    Args:
        query: `[B or 1, Q, H*D]`.
        key: `[B, Q, H*D]`.
        value: `[B, Q, H*D]`.
        output: `[B, Q, H*D]`, contiguous.
        num_heads: H.
        num_partial: P.
        num_global: G.
        scale: Factor on the scores.
        partial_window: Number of neighbouring partial tokens that a partial token sees, 0: all.
        tiles: How to cut the work; chosen by size by default.
    """
    head_dim, programs = query.shape[2] // num_heads, key.shape[0] * num_heads
    tiles = tiles or choose_tiles(
        num_partial=num_partial, num_global=num_global, head_dim=head_dim, dtype=query.dtype
    )
    sees_all = not partial_window or partial_window // 2 >= num_partial - 1
    blocks = cdiv(num_partial, tiles.block_query) + cdiv(num_global, tiles.block_query)
    arguments = (
        *(query, key, value, output),
        *token_strides(query, key, value),
        scale * LOG2_E,
    )
    options = {
        "NUM_HEADS": num_heads,
        "HEAD_DIM": head_dim,
        "NUM_PARTIAL": num_partial,
        "NUM_GLOBAL": num_global,
        "REACH": -1 if sees_all else partial_window // 2,
        "BLOCK_DIM": padded_head_dim(head_dim),
        "BLOCK_QUERY": tiles.block_query,
        "BLOCK_KEY": tiles.block_key,
        "WIDEN": INTERPRETED and query.dtype == torch.bfloat16,
        "num_warps": tiles.num_warps,
        "num_stages": tiles.num_stages,
        **dependent_launch(query.device),
    }
    return KernelCall((programs, blocks), arguments, options)


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
    tiles: Tiles | None = None,
) -> Tensor:
    """Compute `reference.block_diagonal_attention` in one launch.

    Scores and softmax are float32; the weights are rounded to the dtype of the inputs before they meet the
    values, sums are float32. float32 inputs are multiplied in float32, not TF32.

    Args:
        query: `[B or 1, Q, H*D]`, float16, bfloat16 or float32; any batch and row stride, channels dense.
        key: `[B, Q, H*D]`, likewise.
        value: `[B, Q, H*D]`, likewise.
        num_heads: H.
        num_partial: P, may be 0.
        num_global: G, may be 0.
        scale: Factor on the scores.
        partial_window: Odd number of neighbouring partial tokens, centred on itself, that a partial token
            sees; 0 means all of them.
        tiles: How to cut the work; chosen by size by default.

    Returns:
        `[B, Q, H*D]`, contiguous.

    Raises:
        ValueError: The kernel does not take the inputs; the text says why.
    """
    sizes = {"num_heads": num_heads, "num_partial": num_partial, "num_global": num_global}
    if reason := explain_block_diagonal_attention(
        query, key, value, **sizes, scale=scale, partial_window=partial_window
    ):
        raise ValueError(f"block_diagonal_attention: {reason}")
    with device_guard(query):
        output = torch.empty((key.shape[0], *query.shape[1:]), dtype=query.dtype, device=query.device)
        if output.numel():
            grid, arguments, options = launch_arguments(
                query, key, value, output, **sizes, scale=scale, partial_window=partial_window, tiles=tiles
            )
            block_diagonal_kernel[grid](*arguments, **options)
    return output
