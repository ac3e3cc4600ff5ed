"""`fused_linear` as one kernel: product, norm of the input, bias, GELU, residual and statistics of the result.

For products of few rows (the projector at small batch), where every further kernel costs as much as the product.
The definition is `reference_linear.fused_linear`; the kernel is in `triton_linear_kernel.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from pargo_kernels.reference_linear import (
    Activation,
    FoldedLinear,
    NormalisedResidual,
    RowStatistics,
    check_fused_linear,
)
from pargo_kernels.triton_common import KernelCall
from pargo_kernels.triton_dependent import dependent_launch
from pargo_kernels.triton_device import INTERPRETED, device_guard
from pargo_kernels.triton_linear_kernel import linear_kernel

__all__ = [
    "Tiles",
    "capability_of",
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


def capability_of(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a device; the interpreter stands for 9.0, the first with a copy engine."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


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
    capability = capability_of(x.device)
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
    with device_guard(x):
        linear_kernel[grid](*arguments, **options)
    return out, None if kept is None else RowStatistics(kept, tiles.columns, columns)
