"""`bias_gelu` and `scale_bias`: one kernel, each value read once and written once.

The definitions are `reference_fusions.bias_gelu` and `reference_fusions.scale_bias`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import Quantize, check_pending, float_dtype
from pargo_kernels.triton_common import (
    KernelCall,
    Launch,
    apply_pending,
    explain_tensors,
    gelu,
    load_inverse_scale,
    row_strides,
    triton_dtype,
    write_rounded,
)
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous
from pargo_kernels.triton_device import device_guard

__all__ = [
    "bias_gelu",
    "choose_launch",
    "elementwise_kernel",
    "explain_bias_gelu",
    "explain_scale_bias",
    "launch_elementwise",
    "scale_bias",
]

MAX_BLOCK = 1024  # channels of one program: 8 a thread, one 16-byte load, with 4 warps
MANY_ROWS = 2112  # 132 SMs of an H100, 16 programs of 4 warps on each


@triton.jit
def elementwise_kernel(
    x_ptr: tl.tensor,  # [B, N, C], strided rows
    x_scale_ptr: tl.tensor | None,  # float [C] or None
    x_bias_ptr: tl.tensor | None,  # [C] or None
    quantize_scale_ptr: tl.tensor | None,  # float32 [1] or None
    out_ptr: tl.tensor,  # [B, N, C], FLOAT or the quantized type
    num_rows: tl.tensor,  # B * N
    x_batch_stride: tl.tensor,
    x_row_stride: tl.tensor,
    TOKENS: tl.constexpr,  # N, or 1 if all rows lie at one stride, that of the batch
    CHANNELS: tl.constexpr,  # C
    BLOCK: tl.constexpr,  # channels of one program, a power of two
    ROWS: tl.constexpr,  # rows of one program
    GELU: tl.constexpr,  # whether GELU follows
    FLOAT: tl.constexpr,  # float type of the result
    DEPENDENT: tl.constexpr,  # see `triton_dependent`
) -> None:
    """Write one block of rows and channels; the blocks of a row are neighbours."""
    num_blocks: tl.constexpr = (CHANNELS + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    row = program // num_blocks * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    channel = program % num_blocks * BLOCK + tl.arange(0, BLOCK)[None, :]  # [1, BLOCK]
    in_row = channel < CHANNELS
    mask = (row < num_rows) & in_row
    image = (row // TOKENS).to(tl.int64)
    token = (row % TOKENS).to(tl.int64)
    inverse_scale = load_inverse_scale(quantize_scale_ptr)
    if DEPENDENT:
        wait_for_previous()
        release_dependents()
    x = tl.load(x_ptr + image * x_batch_stride + token * x_row_stride + channel, mask=mask, other=0)
    value = apply_pending(x, channel, in_row, x_scale_ptr, x_bias_ptr)
    if GELU:
        value = gelu(value)
    out_ptrs = out_ptr + row.to(tl.int64) * CHANNELS + channel
    write_rounded(out_ptrs, value, mask, inverse_scale, FLOAT)


def choose_launch(num_rows: int, channels: int, *, wide_result: bool = True) -> Launch:
    """Choose rows and warps of a program: 8 channels a thread; two rows where there are many.

    Two rows share the factors and biases that are read, and their loads overlap. One row for 8-bit results,
    which would be exchanged through shared memory otherwise.
    """
    num_warps = max(min(triton.next_power_of_2(channels), MAX_BLOCK) // (32 * 8), 1)
    return Launch(rows_per_program=2 if wide_result and num_rows > MANY_ROWS else 1, num_warps=num_warps)


def explain_bias_gelu(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    if x.ndim > 3 and not x.is_contiguous():
        return f"x has {x.ndim} axes and is not contiguous: flatten its leading axes"
    return explain_tensors(x, dtype or x.dtype, {"x_scale": x_scale, "x_bias": x_bias}, quantize)


explain_scale_bias = explain_bias_gelu  # the same kernel


def launch_elementwise(
    x: Tensor,
    out: Tensor,
    *,
    gelu: bool,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype,
    launch: Launch | None = None,
) -> KernelCall:
    """Return grid, arguments and options of `elementwise_kernel`; `out` is written."""
    channels = x.shape[-1]
    num_rows = x.shape[:-1].numel()
    launch = launch or choose_launch(num_rows, channels, wide_result=quantize is None)
    block = min(triton.next_power_of_2(channels), MAX_BLOCK)
    tokens, batch_stride, row_stride = row_strides(x)
    arguments = (
        *(x, x_scale, x_bias, quantize.scale if quantize else None, out),
        *(num_rows, batch_stride, row_stride),
    )
    options = {
        "TOKENS": tokens,
        "CHANNELS": channels,
        "BLOCK": block,
        "ROWS": launch.rows_per_program,
        "GELU": gelu,
        "FLOAT": triton_dtype(dtype),
        "num_warps": launch.num_warps,
        **dependent_launch(x.device),
    }
    programs = triton.cdiv(num_rows, launch.rows_per_program) * triton.cdiv(channels, block)
    return KernelCall((programs,), arguments, options)


def bias_gelu(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """`gelu(value(x))` by the error function: as the reference, by the kernel.

    Args:
        x: `[..., C]`, float16, bfloat16, float32 or int32; rows at any stride up to three axes.
        x_scale: float `[C]`, pending factor of x.
        x_bias: `[C]`, pending bias of x.
        quantize: Quantize the result.
        dtype: Float type of the result; that of x unless given.
        launch: Rows and warps of a program, for tuning.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    return _run(x, gelu=True, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype, launch=launch)


def scale_bias(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """`value(x)`, rounded and quantized: as the reference, by the kernel; arguments as `bias_gelu`.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    return _run(x, gelu=False, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype, launch=launch)


def _run(
    x: Tensor,
    *,
    gelu: bool,
    x_scale: Tensor | None,
    x_bias: Tensor | None,
    quantize: Quantize | None,
    dtype: torch.dtype | None,
    launch: Launch | None,
) -> Tensor:
    dtype = float_dtype(x, dtype)
    check_pending(x, x_scale, x_bias)
    reason = explain_bias_gelu(x, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype)
    if reason is not None:
        raise ValueError(reason)
    out = torch.empty(x.shape, dtype=quantize.dtype if quantize else dtype, device=x.device)
    grid, arguments, options = launch_elementwise(
        *(x, out),
        gelu=gelu,
        x_scale=x_scale,
        x_bias=x_bias,
        quantize=quantize,
        dtype=dtype,
        launch=launch,
    )
    with device_guard(x):
        elementwise_kernel[grid](*arguments, **options)
    return out
