"""`swiglu_layer_norm` in one pass: gate and up are read once, the gated row stays in registers.

The definition is `reference_fusions.swiglu_layer_norm`. Blocks are powers of two, and 2752 hidden channels
would leave a third of one block of 4096 idle; three blocks of 1024 leave a tenth. The three are added lane
by lane before they are reduced, so that a row still costs two reductions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import Quantize, check_pending, check_swiglu_layer_norm, float_dtype
from pargo_kernels.triton_common import (
    KernelCall,
    Launch,
    apply_pending,
    explain_tensors,
    load_inverse_scale,
    load_vector,
    row_strides,
    sigmoid,
    triton_dtype,
    write_rounded,
)
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous
from pargo_kernels.triton_device import device_guard

__all__ = [
    "choose_blocks",
    "choose_launch",
    "explain_swiglu_layer_norm",
    "launch_swiglu_layer_norm",
    "swiglu_layer_norm",
    "swiglu_layer_norm_kernel",
]

MAX_CHANNELS = 16384  # a row has to fit the registers of one program


@triton.jit
def _gate(
    row_ptr: tl.tensor,  # where the row of gate_up starts
    end: tl.tensor,  # channels of the row, 0 if there is no such row
    channel: tl.tensor,  # [BLOCK]
    x_scale_ptr: tl.tensor | None,
    x_bias_ptr: tl.tensor | None,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> tl.tensor:
    """Return `silu(gate) * up` of a block of channels in float32, 0 from WIDTH on.

    Read is up to CHANNELS, a multiple of 8 in a padded model: a mask that ends at WIDTH, 2730, would cut
    16-byte loads into loads of two channels.
    """
    exists = channel < CHANNELS
    mask = channel < end
    gate = tl.load(row_ptr + channel, mask=mask, other=0)
    up = tl.load(row_ptr + CHANNELS + channel, mask=mask, other=0)
    gate = apply_pending(gate, channel, exists, x_scale_ptr, x_bias_ptr)
    up = apply_pending(up, CHANNELS + channel, exists, x_scale_ptr, x_bias_ptr)
    return tl.where(channel < WIDTH, gate * sigmoid(gate) * up, 0.0)


@triton.jit
def _write(
    out_ptr: tl.tensor,  # where the row of the result starts
    end: tl.tensor,  # channels of the row, 0 if there is no such row
    channel: tl.tensor,
    normalised: tl.tensor,  # [BLOCK]
    inverse_scale: tl.tensor,
    WIDTH: tl.constexpr,
    FLOAT: tl.constexpr,
) -> None:
    """Store a block of channels; padded ones become 0, whatever gain and offset hold there."""
    value = tl.where(channel < WIDTH, normalised, 0.0)
    write_rounded(out_ptr + channel, value, channel < end, inverse_scale, FLOAT)


@triton.jit
def swiglu_layer_norm_kernel(
    gate_up_ptr: tl.tensor,  # [B, N, 2F], strided rows
    weight_ptr: tl.tensor,  # [F]
    bias_ptr: tl.tensor,  # [F]
    x_scale_ptr: tl.tensor | None,  # float [2F] or None
    x_bias_ptr: tl.tensor | None,  # [2F] or None
    quantize_scale_ptr: tl.tensor | None,  # float32 [1] or None
    out_ptr: tl.tensor,  # [B, N, F], FLOAT or the quantized type
    num_rows: tl.tensor,  # B * N
    x_batch_stride: tl.tensor,
    x_row_stride: tl.tensor,
    eps: tl.tensor,
    TOKENS: tl.constexpr,  # N, or 1 if all rows lie at one stride, that of the batch
    CHANNELS: tl.constexpr,  # F
    WIDTH: tl.constexpr,  # channels that count
    BLOCK: tl.constexpr,  # power of two
    NUM_BLOCKS: tl.constexpr,  # 1 or 3; together at least F
    ROWS: tl.constexpr,  # rows of one program
    FLOAT: tl.constexpr,  # float type of the result
    DEPENDENT: tl.constexpr,  # see `triton_dependent`
) -> None:
    """Write the gated and normalised rows of consecutive rows, one after the other."""
    first = tl.arange(0, BLOCK)
    second = BLOCK + first
    third = 2 * BLOCK + first
    # Constants first: they may be read while the kernel before this one still runs, and serve every row.
    inverse_scale = load_inverse_scale(quantize_scale_ptr)
    weight_1 = load_vector(weight_ptr, first, first < CHANNELS, 1.0)
    bias_1 = load_vector(bias_ptr, first, first < CHANNELS, 0.0)
    if NUM_BLOCKS == 3:
        weight_2 = load_vector(weight_ptr, second, second < CHANNELS, 1.0)
        weight_3 = load_vector(weight_ptr, third, third < CHANNELS, 1.0)
        bias_2 = load_vector(bias_ptr, second, second < CHANNELS, 0.0)
        bias_3 = load_vector(bias_ptr, third, third < CHANNELS, 0.0)
    if DEPENDENT:
        wait_for_previous()
        release_dependents()

    for index in range(ROWS):
        row = tl.program_id(0) * ROWS + index
        end = tl.where(row < num_rows, CHANNELS, 0)
        image = (row // TOKENS).to(tl.int64)
        token = (row % TOKENS).to(tl.int64)
        row_ptr = gate_up_ptr + image * x_batch_stride + token * x_row_stride
        row_out_ptr = out_ptr + row.to(tl.int64) * CHANNELS
        hidden_1 = _gate(row_ptr, end, first, x_scale_ptr, x_bias_ptr, CHANNELS, WIDTH)
        total = hidden_1
        if NUM_BLOCKS == 3:
            hidden_2 = _gate(row_ptr, end, second, x_scale_ptr, x_bias_ptr, CHANNELS, WIDTH)
            hidden_3 = _gate(row_ptr, end, third, x_scale_ptr, x_bias_ptr, CHANNELS, WIDTH)
            total = hidden_1 + hidden_2 + hidden_3
        mean = tl.sum(total, axis=0) / WIDTH

        centred_1 = tl.where(first < WIDTH, hidden_1 - mean, 0.0)
        squares = centred_1 * centred_1
        if NUM_BLOCKS == 3:
            centred_2 = tl.where(second < WIDTH, hidden_2 - mean, 0.0)
            centred_3 = tl.where(third < WIDTH, hidden_3 - mean, 0.0)
            squares += centred_2 * centred_2 + centred_3 * centred_3
        scale = tl.rsqrt(tl.sum(squares, axis=0) / WIDTH + eps)

        normalised_1 = centred_1 * scale * weight_1 + bias_1
        _write(row_out_ptr, end, first, normalised_1, inverse_scale, WIDTH, FLOAT)
        if NUM_BLOCKS == 3:
            normalised_2 = centred_2 * scale * weight_2 + bias_2
            normalised_3 = centred_3 * scale * weight_3 + bias_3
            _write(row_out_ptr, end, second, normalised_2, inverse_scale, WIDTH, FLOAT)
            _write(row_out_ptr, end, third, normalised_3, inverse_scale, WIDTH, FLOAT)


def choose_blocks(channels: int) -> tuple[int, int]:
    """Return size and number of the blocks that cover a row: one or three, whichever leaves fewer lanes idle."""
    one, three = triton.next_power_of_2(channels), triton.next_power_of_2(triton.cdiv(channels, 3))
    return (three, 3) if 3 * three < one else (one, 1)


def choose_launch(channels: int) -> Launch:
    """Choose rows and warps of a program.

    Eight channels of each block a thread are one 16-byte load of a 16-bit row, and a row of 2752 keeps six of
    them in flight. More rows a program were slower on an H100, at 577 rows as at 4616.
    """
    return Launch(rows_per_program=1, num_warps=min(max(choose_blocks(channels)[0] // (32 * 8), 1), 8))


def explain_swiglu_layer_norm(
    gate_up: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    if weight.shape[0] > MAX_CHANNELS:
        return f"{weight.shape[0]} hidden channels, the kernel keeps at most {MAX_CHANNELS} in registers"
    others = {"weight": weight, "bias": bias, "x_scale": x_scale, "x_bias": x_bias}
    return explain_tensors(gate_up, dtype or gate_up.dtype, others, quantize)


def launch_swiglu_layer_norm(
    gate_up: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    *,
    width: int,
    eps: float,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype,
    launch: Launch | None = None,
) -> KernelCall:
    """Return grid, arguments and options of `swiglu_layer_norm_kernel`; `out` is written."""
    num_rows, channels = gate_up.shape[0] * gate_up.shape[1], weight.shape[0]
    launch = launch or choose_launch(channels)
    block, num_blocks = choose_blocks(channels)
    tokens, batch_stride, row_stride = row_strides(gate_up)
    arguments = (
        *(gate_up, weight, bias, x_scale, x_bias, quantize.scale if quantize else None, out),
        *(num_rows, batch_stride, row_stride, eps),
    )
    options = {
        "TOKENS": tokens,
        "CHANNELS": channels,
        "WIDTH": width,
        "BLOCK": block,
        "NUM_BLOCKS": num_blocks,
        "ROWS": launch.rows_per_program,
        "FLOAT": triton_dtype(dtype),
        "num_warps": launch.num_warps,
        **dependent_launch(gate_up.device),
    }
    return KernelCall((triton.cdiv(num_rows, launch.rows_per_program),), arguments, options)


def swiglu_layer_norm(
    gate_up: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    width: int,
    eps: float,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """Gate the hidden channels and normalise them: as the reference, by the kernel.

    Args:
        gate_up: `[B, N, 2F]`, float16, bfloat16, float32 or int32.
        weight: `[F]` gain.
        bias: `[F]` offset.
        width: Channels that count.
        eps: Added to the variance.
        x_scale: float `[2F]`, pending factor of gate_up.
        x_bias: `[2F]`, pending bias of gate_up.
        quantize: Quantize the result.
        dtype: Float type of the result; that of gate_up unless given.
        launch: Rows and warps of a program, for tuning; `choose_launch` unless given.

    Returns:
        `[B, N, F]`, contiguous; channels from `width` on are 0.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    dtype = float_dtype(gate_up, dtype)
    check_pending(gate_up, x_scale, x_bias)
    check_swiglu_layer_norm(gate_up, weight, bias, width)
    reason = explain_swiglu_layer_norm(
        gate_up, weight, bias, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype
    )
    if reason is not None:
        raise ValueError(reason)
    shape = (*gate_up.shape[:2], weight.shape[0])
    out = torch.empty(shape, dtype=quantize.dtype if quantize else dtype, device=gate_up.device)
    grid, arguments, options = launch_swiglu_layer_norm(
        *(gate_up, weight, bias, out),
        width=width,
        eps=eps,
        x_scale=x_scale,
        x_bias=x_bias,
        quantize=quantize,
        dtype=dtype,
        launch=launch,
    )
    with device_guard(gate_up):
        swiglu_layer_norm_kernel[grid](*arguments, **options)
    return out
