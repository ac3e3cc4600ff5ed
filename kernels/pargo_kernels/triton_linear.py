"""`fused_linear` as one kernel: product, norm of the input, bias, GELU, residual and statistics of the result.

For products of few rows (the projector at small batch), where every further kernel costs as much as the product.
The definition is `reference_linear.fused_linear`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from pargo_kernels.reference_linear import (
    Activation,
    FoldedLinear,
    NormalisedResidual,
    RowStatistics,
    check_fused_linear,
)
from pargo_kernels.triton_common import INTERPRETED, KernelCall, gelu
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous

__all__ = [
    "Tiles",
    "choose_tiles",
    "explain_fused_linear",
    "fused_linear",
    "launch_fused_linear",
    "linear_kernel",
]

_DTYPES = (torch.float16, torch.bfloat16)
_ALIGNMENT = 8  # elements: 16 bytes, what one load takes


@dataclass(frozen=True)
class Tiles:
    """How the product is cut: rows and columns of a program, depth of a step, warps, steps in flight."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int


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


def choose_tiles(rows: int, columns: int, capability: tuple[int, int]) -> Tiles:
    """Choose tiles by what was fastest on an H100 (docs/performance.md), within the chip's shared memory.

    Narrow tiles where there are few of them, so that most multiprocessors have one; they take long steps, because
    each waits for its own loads.
    """
    many = (rows // 128) * (columns // 128) >= 128
    if capability[0] not in (9, 10, 11):  # 100 KB of shared memory, or copies by the warps themselves
        return Tiles(128, 128, 32, 8, 4) if many else Tiles(64, 64, 64, 4, 3)
    if many:
        return Tiles(128, 128, 64, 8, 3)
    if rows >= 1024 or columns >= 4096:
        return Tiles(64, 128, 64, 4, 4)
    return Tiles(64, 64, 64, 4, 5) if columns > 1024 else Tiles(64, 32, 256, 4, 3)


def explain_fused_linear(x: Tensor, linear: FoldedLinear, *, residual: Tensor | None = None) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    tensors = {"x": x, "the weight": linear.weight, "the residual": residual}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != x.dtype or tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}, expected {' or '.join(map(str, _DTYPES))} for all tensors"
        if tensor.device != x.device or (not tensor.is_cuda and not INTERPRETED):
            return f"{name} is on {tensor.device}, expected the CUDA device of all tensors"
        if not tensor.is_contiguous():
            return f"{name} is not contiguous: call .contiguous()"
    depth = linear.weight.shape[1]
    if depth % _ALIGNMENT:
        return f"the depth {depth} is not a multiple of {_ALIGNMENT}, so rows are not aligned: pad with zeros"
    return None


def launch_fused_linear(
    x: Tensor,
    linear: FoldedLinear,
    out: Tensor,
    *,
    statistics: RowStatistics | None = None,
    activation: Activation = "none",
    residual: Tensor | None = None,
    residual_norm: NormalisedResidual | None = None,
    out_statistics: Tensor | None = None,
    tiles: Tiles,
    capability: tuple[int, int],
) -> KernelCall:
    """Return grid, arguments and options of `linear_kernel`; `out` and `out_statistics` are written."""
    columns, depth = linear.weight.shape
    rows = x.shape[0] * x.shape[1]
    descriptors = capability >= (9, 0)
    x_rows, weight = x.view(rows, depth), linear.weight
    given = residual_norm.statistics if residual_norm else None
    arguments: tuple[Any, ...] = (
        TensorDescriptor.from_tensor(x_rows, [tiles.rows, tiles.depth]) if descriptors else x_rows,
        TensorDescriptor.from_tensor(weight, [tiles.columns, tiles.depth]) if descriptors else weight,
        *(linear.bias, linear.column_sum, statistics.values if statistics else None),
        *(residual, given.values if given else None),
        *((residual_norm.gain, residual_norm.shift) if residual_norm else (None, None)),
        *(out, out_statistics, rows, depth),
        rows if residual is None else residual.shape[0] * residual.shape[1],
        *(float(linear.eps), float(residual_norm.eps) if residual_norm else 0.0),
    )
    chunks = statistics.values.shape[1] if statistics else 1
    residual_chunks = given.values.shape[1] if given else 1
    options: dict[str, Any] = {
        "COLUMNS": columns,
        "DEPTH": depth,
        "CHUNKS": chunks,
        "PADDED_CHUNKS": triton.next_power_of_2(chunks),
        "CHUNK": statistics.chunk if statistics else 1,
        "RESIDUAL_CHUNKS": residual_chunks,
        "PADDED_RESIDUAL_CHUNKS": triton.next_power_of_2(residual_chunks),
        "RESIDUAL_CHUNK": given.chunk if given else 1,
        "GELU": activation == "gelu",
        "DESCRIPTORS": descriptors,
        "WIDEN": INTERPRETED and x.dtype == torch.bfloat16,
        "BLOCK_M": tiles.rows,
        "BLOCK_N": tiles.columns,
        "BLOCK_K": tiles.depth,
        "num_warps": tiles.num_warps,
        "num_stages": tiles.num_stages,
        **dependent_launch(x.device),
    }
    return KernelCall(
        (triton.cdiv(rows, tiles.rows), triton.cdiv(columns, tiles.columns)), arguments, options
    )


def fused_linear(
    x: Tensor,
    linear: FoldedLinear,
    *,
    statistics: RowStatistics | None = None,
    activation: Activation = "none",
    residual: Tensor | None = None,
    residual_norm: NormalisedResidual | None = None,
    keep_statistics: bool = False,
    dtype: torch.dtype | None = None,
    tiles: Tiles | None = None,
) -> tuple[Tensor, RowStatistics | None]:
    """Compute as `reference_linear.fused_linear`, in one kernel; `tiles` are for tuning.

    Raises:
        ValueError: The shapes do not fit, or the kernel cannot take the inputs.
    """
    check_fused_linear(x, linear, statistics, residual, residual_norm)
    reason = explain_fused_linear(x, linear, residual=residual)
    if reason is not None:
        raise ValueError(reason)
    columns = linear.weight.shape[0]
    rows = x.shape[0] * x.shape[1]
    capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)
    tiles = tiles or choose_tiles(rows, columns, capability)
    out = torch.empty((*x.shape[:2], columns), dtype=dtype or x.dtype, device=x.device)
    chunks = triton.cdiv(columns, tiles.columns)
    kept = torch.empty((2, chunks, rows), device=x.device) if keep_statistics else None
    grid, arguments, options = launch_fused_linear(
        *(x, linear, out),
        statistics=statistics,
        activation=activation,
        residual=residual,
        residual_norm=residual_norm,
        out_statistics=kept,
        tiles=tiles,
        capability=capability,
    )
    linear_kernel[grid](*arguments, **options)
    return out, None if kept is None else RowStatistics(kept, tiles.columns, columns)
