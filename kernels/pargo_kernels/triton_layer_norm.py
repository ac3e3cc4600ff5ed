"""`residual_layer_norm` in one pass: a row is read once, stays in registers, is written once.

The definition is `reference_fusions.residual_layer_norm`; bytes moved are counted in `kernels/README.md`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import Quantize, check_layer_norm, check_pending, float_dtype
from pargo_kernels.triton_common import (
    KernelCall,
    Launch,
    apply_pending,
    explain_tensors,
    load_inverse_scale,
    load_vector,
    triton_dtype,
    write_rounded,
)
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous
from pargo_kernels.triton_device import device_guard

__all__ = [
    "choose_launch",
    "explain_residual_layer_norm",
    "launch_residual_layer_norm",
    "residual_layer_norm",
    "residual_layer_norm_kernel",
]

MAX_CHANNELS = 16384  # a row has to fit the registers of one program


@triton.jit
def residual_layer_norm_kernel(
    x_ptr: tl.tensor,  # [B, N-LEAD, C], strided rows
    residual_ptr: tl.tensor | None,  # [B or 1, N, C], strided rows, or None
    weight_ptr: tl.tensor | None,  # [C] or None
    bias_ptr: tl.tensor | None,  # [C] or None
    x_scale_ptr: tl.tensor | None,  # float [C] or None
    x_bias_ptr: tl.tensor | None,  # [C] or None
    quantize_scale_ptr: tl.tensor | None,  # float32 [1] or None
    sum_ptr: tl.tensor | None,  # [B, N, C] or None
    out_ptr: tl.tensor,  # [B, N, C], FLOAT or the quantized type
    num_rows: tl.tensor,  # B * N
    x_batch_stride: tl.tensor,
    x_row_stride: tl.tensor,
    residual_batch_stride: tl.tensor,  # 0 for a residual of batch 1
    residual_row_stride: tl.tensor,
    eps: tl.tensor,
    TOKENS: tl.constexpr,  # N
    LEAD: tl.constexpr,
    CHANNELS: tl.constexpr,  # C
    BLOCK: tl.constexpr,  # power of two, at least C
    ROWS: tl.constexpr,  # rows of one program
    FLOAT: tl.constexpr,  # float type of the results
    DEPENDENT: tl.constexpr,  # see `triton_dependent`
) -> None:
    """Write the sum and the normalised rows of consecutive rows, one after the other."""
    channel = tl.arange(0, BLOCK)
    in_row = channel < CHANNELS
    # Constants first: they may be read while the kernel before this one still runs, and serve every row.
    weight = load_vector(weight_ptr, channel, in_row, 1.0)
    bias = load_vector(bias_ptr, channel, in_row, 0.0)
    inverse_scale = load_inverse_scale(quantize_scale_ptr)
    if DEPENDENT:
        wait_for_previous()
        release_dependents()

    for index in range(ROWS):
        row = tl.program_id(0) * ROWS + index
        end = tl.where(row < num_rows, CHANNELS, 0)
        mask = channel < end
        image = (row // TOKENS).to(tl.int64)
        token = (row % TOKENS).to(tl.int64)
        has_x = channel < tl.where(token >= LEAD, end, 0)
        x_offset = image * x_batch_stride + (token - LEAD) * x_row_stride + channel
        x = tl.load(x_ptr + x_offset, mask=has_x, other=0)  # [BLOCK]
        total = apply_pending(x, channel, in_row, x_scale_ptr, x_bias_ptr)
        if LEAD > 0:
            total = tl.where(has_x, total, 0.0)  # no bias where there is no x
        if residual_ptr is not None:
            residual_offset = image * residual_batch_stride + token * residual_row_stride + channel
            total += tl.load(residual_ptr + residual_offset, mask=mask, other=0.0).to(tl.float32)

        rounded = total.to(FLOAT)
        out_offset = row.to(tl.int64) * CHANNELS + channel
        if sum_ptr is not None:
            tl.store(sum_ptr + out_offset, rounded, mask=mask)

        values = rounded.to(tl.float32)  # lanes beyond C hold 0
        mean = tl.sum(values, axis=0) / CHANNELS
        centred = tl.where(in_row, values - mean, 0.0)
        variance = tl.sum(centred * centred, axis=0) / CHANNELS
        normalised = centred * tl.rsqrt(variance + eps) * weight + bias
        write_rounded(out_ptr + out_offset, normalised, mask, inverse_scale, FLOAT)


def choose_launch(channels: int) -> Launch:
    """Choose rows and warps of a program.

    Eight channels a thread are one 16-byte load of a 16-bit row. More rows a program would read gain and offset less
    often, but wait for one row after the other: on an H100 no faster at 4616 rows (6.4 us), and slower at 577.
    """
    return Launch(rows_per_program=1, num_warps=min(max(triton.next_power_of_2(channels) // (32 * 8), 1), 8))


def explain_residual_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    if x.shape[-1] > MAX_CHANNELS:
        return f"x has {x.shape[-1]} channels, the kernel keeps at most {MAX_CHANNELS} in registers"
    others = {"residual": residual, "weight": weight, "bias": bias, "x_scale": x_scale, "x_bias": x_bias}
    return explain_tensors(x, dtype or x.dtype, others, quantize)


def launch_residual_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    total: Tensor | None,
    out: Tensor,
    *,
    eps: float,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    lead: int = 0,
    quantize: Quantize | None = None,
    dtype: torch.dtype,
    launch: Launch | None = None,
) -> KernelCall:
    """Return grid, arguments and options of `residual_layer_norm_kernel`; `total` and `out` are written."""
    batch, tokens, channels = x.shape[0], x.shape[1] + lead, x.shape[2]
    launch = launch or choose_launch(channels)
    residual_strides = (0, 0)
    if residual is not None:
        residual_strides = (residual.stride(0) if residual.shape[0] > 1 else 0, residual.stride(1))
    arguments = (
        *(x, residual, weight, bias, x_scale, x_bias),
        *(quantize.scale if quantize else None, total, out),
        *(batch * tokens, x.stride(0), x.stride(1), *residual_strides, eps),
    )
    options = {
        "TOKENS": tokens,
        "LEAD": lead,
        "CHANNELS": channels,
        "BLOCK": triton.next_power_of_2(channels),
        "ROWS": launch.rows_per_program,
        "FLOAT": triton_dtype(dtype),
        "num_warps": launch.num_warps,
        **dependent_launch(x.device),
    }
    return KernelCall((triton.cdiv(batch * tokens, launch.rows_per_program),), arguments, options)


def residual_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    lead: int = 0,
    quantize: Quantize | None = None,
    keep_sum: bool = True,
    dtype: torch.dtype | None = None,
    launch: Launch | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Add a product to the residual stream and normalise the sum: as the reference, by the kernel.

    Args:
        x: `[B, N-lead, C]`, float16, bfloat16, float32 or int32.
        residual: `[B or 1, N, C]` or `None`.
        weight: `[C]` or `None`.
        bias: `[C]` or `None`.
        eps: Added to the variance.
        x_scale: float `[C]`, pending factor of x.
        x_bias: `[C]`, pending bias of x.
        lead: Rows in front of x for which the sum is the residual alone.
        quantize: Quantize the normalised rows.
        keep_sum: Return the sum.
        dtype: Float type of the results; that of x unless given.
        launch: Rows and warps of a program, for tuning; `choose_launch` unless given.

    Returns:
        Sum (or `None`) and normalised rows, `[B, N, C]`, contiguous.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    dtype = float_dtype(x, dtype)
    check_pending(x, x_scale, x_bias)
    check_layer_norm(x, residual, weight, bias, lead)
    reason = explain_residual_layer_norm(
        x, residual, weight, bias, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype
    )
    if reason is not None:
        raise ValueError(reason)
    shape = (x.shape[0], x.shape[1] + lead, x.shape[2])
    total = torch.empty(shape, dtype=dtype, device=x.device) if keep_sum else None
    out = torch.empty(shape, dtype=quantize.dtype if quantize else dtype, device=x.device)
    grid, arguments, options = launch_residual_layer_norm(
        *(x, residual, weight, bias, total, out),
        eps=eps,
        x_scale=x_scale,
        x_bias=x_bias,
        lead=lead,
        quantize=quantize,
        dtype=dtype,
        launch=launch,
    )
    with device_guard(x):
        residual_layer_norm_kernel[grid](*arguments, **options)
    return total, out
