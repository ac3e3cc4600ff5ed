"""The Triton kernel of `fused_linear`: one tile of the product, and all that comes after it.

Arguments and tiles are prepared by `triton_linear`; the definition is `reference_linear.fused_linear`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pargo_kernels.triton_common import gelu
from pargo_kernels.triton_dependent import release_dependents, wait_for_previous

__all__ = ["linear_kernel"]


@triton.jit
def _load_statistics(
    statistics_ptr: tl.tensor,
    rows: tl.tensor,
    mask: tl.tensor,
    num_rows: tl.tensor,
    CHUNKS: tl.constexpr,
    PADDED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Means and centred square sums of the chunks of rows, `[PADDED, rows]` each."""
    index = tl.arange(0, PADDED)[:, None]
    inside = (index < CHUNKS) & mask[None, :]
    place = statistics_ptr + index * num_rows + rows[None, :]
    means = tl.load(place, mask=inside, other=0.0)
    return means, tl.load(place + CHUNKS * num_rows, mask=inside, other=0.0)


@triton.jit
def _combine(
    means: tl.tensor,
    squares: tl.tensor,
    eps: tl.tensor,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Mean and reciprocal standard deviation of rows, from those of their chunks (Chan's formula)."""
    counts = tl.minimum(tl.maximum(WIDTH - tl.arange(0, PADDED) * CHUNK, 0), CHUNK).to(tl.float32)[:, None]
    mean = tl.sum(means * counts, axis=0) / WIDTH
    apart = means - mean[None, :]
    variance = tl.sum(squares + apart * apart * counts, axis=0) / WIDTH
    return mean, tl.rsqrt(variance + eps)


@triton.jit
def linear_kernel(
    x_ptr: tl.tensor,  # [M, K], or its descriptor
    weight_ptr: tl.tensor,  # [N, K], or its descriptor
    bias_ptr: tl.tensor,  # float32 [N]
    column_sum_ptr: tl.tensor | None,  # float32 [N] or None
    statistics_ptr: tl.tensor | None,  # float32 [2, CHUNKS, M], of x, or None
    residual_ptr: tl.tensor | None,  # [M or RESIDUAL_ROWS, N] or None
    residual_statistics_ptr: tl.tensor | None,  # float32 [2, RESIDUAL_CHUNKS, RESIDUAL_ROWS] or None
    gain_ptr: tl.tensor | None,  # float32 [N] or None
    shift_ptr: tl.tensor | None,  # float32 [N] or None
    out_ptr: tl.tensor,  # [M, N]
    out_statistics_ptr: tl.tensor | None,  # float32 [2, N / BLOCK_N, M] or None
    num_rows: tl.tensor,  # M
    x_row_stride: tl.tensor,
    residual_rows: tl.tensor,  # rows after which the residual repeats
    eps: tl.tensor,
    residual_eps: tl.tensor,
    COLUMNS: tl.constexpr,  # N
    DEPTH: tl.constexpr,  # K
    CHUNKS: tl.constexpr,
    PADDED_CHUNKS: tl.constexpr,  # power of two, at least CHUNKS
    CHUNK: tl.constexpr,
    RESIDUAL_CHUNKS: tl.constexpr,
    PADDED_RESIDUAL_CHUNKS: tl.constexpr,
    RESIDUAL_CHUNK: tl.constexpr,
    GELU: tl.constexpr,
    DESCRIPTORS: tl.constexpr,  # tiles come by the copy engine of cc 9.0 and later
    DEPENDENT: tl.constexpr,  # launched before the previous kernel ends
    WIDEN: tl.constexpr,  # multiply in float32: Triton's interpreter has no product of bfloat16
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Compute one tile of the result."""
    tile_m = tl.program_id(0)  # neighbours in time share the weights
    tile_n = tl.program_id(1)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = rows < num_rows
    in_columns = columns < COLUMNS
    bias = tl.load(bias_ptr + columns, mask=in_columns, other=0.0)  # weights: no kernel writes them
    if DEPENDENT:
        wait_for_previous()
        release_dependents()

    # What the end needs is asked for now, and comes while the product is computed.
    mask = in_rows[:, None] & in_columns[None, :]
    if statistics_ptr is not None:
        means, squares = _load_statistics(statistics_ptr, rows, in_rows, num_rows, CHUNKS, PADDED_CHUNKS)
    if residual_ptr is not None:
        row = rows % residual_rows
        offsets = row.to(tl.int64)[:, None] * COLUMNS + columns[None, :]
        residual = tl.load(residual_ptr + offsets, mask=mask, other=0.0)
        if residual_statistics_ptr is not None:
            residual_means, residual_squares = _load_statistics(
                residual_statistics_ptr,
                row,
                in_rows,
                residual_rows,
                RESIDUAL_CHUNKS,
                PADDED_RESIDUAL_CHUNKS,
            )

    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    if DESCRIPTORS:
        for start in range(0, DEPTH, BLOCK_K):
            x = x_ptr.load([tile_m * BLOCK_M, start])
            weight = weight_ptr.load([tile_n * BLOCK_N, start])
            if WIDEN:
                x, weight = x.to(tl.float32), weight.to(tl.float32)
            accumulator = tl.dot(x, weight.T, accumulator)
    else:
        inner = tl.arange(0, BLOCK_K)
        # Rows and columns past the end wrap around: their results are not stored.
        x_ptrs = x_ptr + (rows % num_rows).to(tl.int64)[:, None] * x_row_stride + inner[None, :]
        weight_ptrs = weight_ptr + (columns % COLUMNS)[None, :] * DEPTH + inner[:, None]
        for start in range(0, DEPTH, BLOCK_K):
            if DEPTH % BLOCK_K == 0:
                x = tl.load(x_ptrs)
                weight = tl.load(weight_ptrs)
            else:
                left = inner < DEPTH - start
                x = tl.load(x_ptrs, mask=left[None, :], other=0.0)
                weight = tl.load(weight_ptrs, mask=left[:, None], other=0.0)
            if WIDEN:
                x, weight = x.to(tl.float32), weight.to(tl.float32)
            accumulator = tl.dot(x, weight, accumulator)
            x_ptrs += BLOCK_K
            weight_ptrs += BLOCK_K

    values = accumulator
    if statistics_ptr is not None:
        mean, rstd = _combine(means, squares, eps, CHUNK, DEPTH, PADDED_CHUNKS)
        column_sum = tl.load(column_sum_ptr + columns, mask=in_columns, other=0.0)
        values = (values - mean[:, None] * column_sum[None, :]) * rstd[:, None]
    values += bias[None, :]
    if GELU:
        values = gelu(values)

    if residual_ptr is not None:
        added = residual.to(tl.float32)
        if residual_statistics_ptr is not None:
            mean, rstd = _combine(
                residual_means,
                residual_squares,
                residual_eps,
                RESIDUAL_CHUNK,
                COLUMNS,
                PADDED_RESIDUAL_CHUNKS,
            )
            gain = tl.load(gain_ptr + columns, mask=in_columns, other=0.0)
            shift = tl.load(shift_ptr + columns, mask=in_columns, other=0.0)
            added = (added - mean[:, None]) * rstd[:, None] * gain[None, :] + shift[None, :]
        values += added

    stored = values.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + rows.to(tl.int64)[:, None] * COLUMNS + columns[None, :], stored, mask=mask)
    if out_statistics_ptr is not None:
        # Of the rounded values: these are what the reader multiplies.
        kept = stored.to(tl.float32)
        count = tl.minimum(COLUMNS - tile_n * BLOCK_N, BLOCK_N).to(tl.float32)
        mean = tl.sum(tl.where(in_columns[None, :], kept, 0.0), axis=1) / count
        apart = tl.where(in_columns[None, :], kept - mean[:, None], 0.0)
        place = tile_n * num_rows + rows
        tl.store(out_statistics_ptr + place, mean, mask=in_rows)
        squares = tl.num_programs(1) * num_rows + place
        tl.store(out_statistics_ptr + squares, tl.sum(apart * apart, axis=1), mask=in_rows)
