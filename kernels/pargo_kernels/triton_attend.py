"""Pieces that both attention kernels are built from: loads of token rows, and one step of online softmax.

Softmax runs in base 2: `exp(s * scale) = exp2(s * scale * log2(e))`, and the factor comes folded into one.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "LOG2_E",
    "attend_block",
    "first_rows",
    "load_rows",
    "normalise",
    "store_rows",
]

LOG2_E = 1.4426950408889634

# Where the maximum of a row of scores starts. Finite, so that a row that has seen masked scores (-inf)
# only computes exp2(-inf - LOWEST) = 0 and not exp2(-inf + inf) = NaN.
LOWEST = tl.constexpr(-1.0e38)


@triton.jit
def load_rows(
    base: tl.tensor,
    rows: tl.tensor,
    row_stride: tl.tensor,
    last_row: tl.tensor,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    ALL_ROWS: tl.constexpr,
) -> tl.tensor:
    """`[rows, BLOCK_DIM]` channels of one head; zero from `last_row` on and beyond HEAD_DIM.

    ALL_ROWS promises that every row exists, so that no mask is made where none is needed.
    """
    columns = tl.arange(0, BLOCK_DIM)
    pointers = base + rows[:, None] * row_stride + columns[None, :]
    if ALL_ROWS and HEAD_DIM == BLOCK_DIM:
        tile = tl.load(pointers)
    elif HEAD_DIM == BLOCK_DIM:
        tile = tl.load(pointers, mask=(rows < last_row)[:, None], other=0.0)
    else:
        mask = (rows < last_row)[:, None] & (columns < HEAD_DIM)[None, :]
        tile = tl.load(pointers, mask=mask, other=0.0)
    return tile


@triton.jit
def store_rows(
    base: tl.tensor,
    rows: tl.tensor,
    last_row: tl.tensor,
    tile: tl.tensor,
    ROW_STRIDE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
) -> None:
    """Write the rows before `last_row`, first HEAD_DIM channels, in the dtype of `base`."""
    columns = tl.arange(0, BLOCK_DIM)
    mask = (rows < last_row)[:, None]
    if HEAD_DIM != BLOCK_DIM:
        mask = mask & (columns < HEAD_DIM)[None, :]
    pointers = base + rows[:, None] * ROW_STRIDE + columns[None, :]
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def first_rows(BLOCK_QUERY: tl.constexpr, BLOCK_DIM: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """State of the online softmax before any key: maximum, sum of weights, weighted sum of values."""
    row_max = tl.full((BLOCK_QUERY,), LOWEST, tl.float32)
    return row_max, tl.zeros((BLOCK_QUERY,), tl.float32), tl.zeros((BLOCK_QUERY, BLOCK_DIM), tl.float32)


@triton.jit
def attend_block(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    visible: tl.tensor,
    factor: tl.tensor,
    row_max: tl.tensor,
    row_sum: tl.tensor,
    accumulator: tl.tensor,
    WIDEN: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Take one block of keys into the online softmax.

    `query` [M, D], `key` and `value` [N, D]; `visible` broadcasts to [M, N], or is None where all is seen;
    `factor` is scale * log2(e). WIDEN multiplies in float32: NumPy, which the interpreter computes with, has
    no bfloat16.
    """
    if WIDEN:
        products = tl.dot(query.to(tl.float32), tl.trans(key.to(tl.float32)), input_precision="ieee")
    else:
        products = tl.dot(query, tl.trans(key), input_precision="ieee")
    scores = products * factor
    if visible is not None:
        scores = tl.where(visible, scores, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(scores, axis=1))
    weights = tl.exp2(scores - new_max[:, None])
    correction = tl.exp2(row_max - new_max)
    row_sum = row_sum * correction + tl.sum(weights, axis=1)
    accumulator = accumulator * correction[:, None]
    weights = weights.to(value.dtype)
    if WIDEN:
        accumulator = tl.dot(
            weights.to(tl.float32), value.to(tl.float32), accumulator, input_precision="ieee"
        )
    else:
        accumulator = tl.dot(weights, value, accumulator, input_precision="ieee")
    return new_max, row_sum, accumulator


@triton.jit
def normalise(accumulator: tl.tensor, row_sum: tl.tensor) -> tl.tensor:
    """Divide by the sum of the weights; rows past the end may have seen no key and stay zero."""
    return accumulator / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]
