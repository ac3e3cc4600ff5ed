"""The Triton kernel of ParGo's self-attention: partial tokens among themselves, global tokens among themselves.

A program takes one block of queries of one kind and one head, and walks over the keys of that kind with an
online softmax. With a window only the keys that the block can see are walked over.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pargo_kernels.triton_attend import attend_block, first_rows, load_rows, normalise, store_rows
from pargo_kernels.triton_dependent import release_dependents, wait_for_previous

__all__ = ["block_diagonal_kernel"]


@triton.jit
def block_diagonal_kernel(
    query_ptr: tl.tensor,
    key_ptr: tl.tensor,
    value_ptr: tl.tensor,
    output_ptr: tl.tensor,
    query_batch_stride: tl.tensor,
    query_row_stride: tl.tensor,
    key_batch_stride: tl.tensor,
    key_row_stride: tl.tensor,
    value_batch_stride: tl.tensor,
    value_row_stride: tl.tensor,
    factor: tl.tensor,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    NUM_PARTIAL: tl.constexpr,
    NUM_GLOBAL: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERY: tl.constexpr,
    BLOCK_KEY: tl.constexpr,
    WIDEN: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    """Grid: (batch * heads, blocks of partial queries + blocks of global queries).

    `factor` is scale * log2(e), float32. REACH is how far a partial token sees to either side, -1: all.
    The output is contiguous, `[B, P + G, H * D]`.
    """
    partial_blocks: tl.constexpr = (NUM_PARTIAL + BLOCK_QUERY - 1) // BLOCK_QUERY
    num_tokens: tl.constexpr = NUM_PARTIAL + NUM_GLOBAL
    row_width: tl.constexpr = NUM_HEADS * HEAD_DIM
    image = (tl.program_id(0) // NUM_HEADS).to(tl.int64)
    channel = tl.program_id(0) % NUM_HEADS * HEAD_DIM
    block = tl.program_id(1)

    # Both kinds run the same code; only the bounds differ.
    is_partial = block < partial_blocks
    first_query = tl.where(
        is_partial, block * BLOCK_QUERY, NUM_PARTIAL + (block - partial_blocks) * BLOCK_QUERY
    )
    first_key = tl.where(is_partial, 0, NUM_PARTIAL)
    last = tl.where(is_partial, NUM_PARTIAL, num_tokens)  # of queries and keys alike
    last_key = last
    if REACH >= 0:  # keys that no query of the block sees are not walked over
        first_key = tl.where(is_partial, tl.maximum(first_query - REACH, 0), first_key)
        last_key = tl.where(is_partial, tl.minimum(first_query + BLOCK_QUERY + REACH, last), last)

    rows = first_query + tl.arange(0, BLOCK_QUERY)
    query_base = query_ptr + image * query_batch_stride + channel
    key_base = key_ptr + image * key_batch_stride + channel
    value_base = value_ptr + image * value_batch_stride + channel
    if DEPENDENT:
        wait_for_previous()
        release_dependents()
    query = load_rows(query_base, rows, query_row_stride, last, HEAD_DIM, BLOCK_DIM, False)

    row_max, row_sum, accumulator = first_rows(BLOCK_QUERY, BLOCK_DIM)
    for start in range(first_key, last_key, BLOCK_KEY):
        columns = start + tl.arange(0, BLOCK_KEY)
        key = load_rows(key_base, columns, key_row_stride, last_key, HEAD_DIM, BLOCK_DIM, False)
        value = load_rows(value_base, columns, value_row_stride, last_key, HEAD_DIM, BLOCK_DIM, False)
        visible = (columns < last_key)[None, :]
        if REACH >= 0:
            distance = tl.abs(rows[:, None] - columns[None, :])
            visible = visible & ((distance <= REACH) | (block >= partial_blocks))
        row_max, row_sum, accumulator = attend_block(
            query, key, value, visible, factor, row_max, row_sum, accumulator, WIDEN
        )

    output_base = output_ptr + image * (num_tokens * row_width) + channel
    result = normalise(accumulator, row_sum)
    store_rows(output_base, rows, last, result, row_width, HEAD_DIM, BLOCK_DIM)
