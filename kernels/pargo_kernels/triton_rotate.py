"""`rotate_heads` in one pass over the heads of query, key and (unless in place) value.

The definition is `reference_fusions.rotate_heads`. Query, key and value lie side by side, so their heads
are one list of 3H heads of D contiguous channels, the first 2H of which turn.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import check_pending, check_rotate_heads, float_dtype
from pargo_kernels.triton_common import KernelCall, Launch, apply_pending, explain_tensors
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous
from pargo_kernels.triton_device import device_guard

__all__ = [
    "choose_launch",
    "explain_rotate_heads",
    "launch_rotate_heads",
    "rotate_heads",
    "rotate_heads_kernel",
]

MANY_HEADS = 67584  # 132 SMs of an H100, 32 programs of 16 heads on each


@triton.jit
def rotate_heads_kernel(
    qkv_ptr: tl.tensor,  # [B, N, 3C], strided rows
    cos_ptr: tl.tensor,  # [N, D]
    signed_sin_ptr: tl.tensor,  # [N, D]
    x_scale_ptr: tl.tensor | None,  # float [3C] or None
    x_bias_ptr: tl.tensor | None,  # [3C] or None
    out_ptr: tl.tensor,  # [B, N, 3C], strided rows; may be qkv_ptr
    num_items: tl.tensor,  # B * N * HEADS
    x_batch_stride: tl.tensor,
    x_row_stride: tl.tensor,
    out_batch_stride: tl.tensor,
    out_row_stride: tl.tensor,
    TOKENS: tl.constexpr,  # N
    HEADS: tl.constexpr,  # heads of a row: 3H, or 2H to leave the value alone
    TURNING: tl.constexpr,  # heads of a row that turn: 2H
    HALF: tl.constexpr,  # D / 2
    BLOCK: tl.constexpr,  # power of two, at least D / 2
    ITEMS: tl.constexpr,  # heads of one program
    DEPENDENT: tl.constexpr,  # see `triton_dependent`
) -> None:
    """Write one block of heads; a head is read whole before it is written."""
    item = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)[:, None]  # [ITEMS, 1]
    column = tl.arange(0, BLOCK)[None, :]  # [1, BLOCK]
    row = item // HEADS
    head = item % HEADS
    image = (row // TOKENS).to(tl.int64)
    token = row % TOKENS
    mask = (item < num_items) & (column < HALF)
    turns = mask & (head < TURNING)

    # Constants first: they may be read while the kernel before this one still runs.
    if HEADS % ITEMS == 0:  # all heads of a program are of one token: its angles are read once
        of_token = tl.program_id(0) * ITEMS // HEADS % TOKENS
        known = column < HALF
    else:
        of_token = token
        known = turns
    angle = of_token * (2 * HALF) + column
    cos_first = tl.load(cos_ptr + angle, mask=known, other=1.0).to(tl.float32)
    cos_second = tl.load(cos_ptr + angle + HALF, mask=known, other=1.0).to(tl.float32)
    sin_first = tl.load(signed_sin_ptr + angle, mask=known, other=0.0).to(tl.float32)
    sin_second = tl.load(signed_sin_ptr + angle + HALF, mask=known, other=0.0).to(tl.float32)
    if DEPENDENT:
        wait_for_previous()
        release_dependents()

    channel = head * (2 * HALF) + column  # of the first half
    x_ptrs = qkv_ptr + image * x_batch_stride + token.to(tl.int64) * x_row_stride + channel
    first = tl.load(x_ptrs, mask=mask, other=0)  # [ITEMS, BLOCK]
    second = tl.load(x_ptrs + HALF, mask=mask, other=0)
    first = apply_pending(first, channel, mask, x_scale_ptr, x_bias_ptr)
    second = apply_pending(second, channel + HALF, mask, x_scale_ptr, x_bias_ptr)

    # Chosen, not multiplied by 1 and 0: an infinite value channel times 0 would be NaN.
    new_first = tl.where(turns, first * cos_first + second * sin_first, first)
    new_second = tl.where(turns, second * cos_second + first * sin_second, second)

    out_ptrs = out_ptr + image * out_batch_stride + token.to(tl.int64) * out_row_stride + channel
    tl.store(out_ptrs, new_first.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out_ptrs + HALF, new_second.to(out_ptr.dtype.element_ty), mask=mask)


def choose_launch(num_items: int, half: int) -> Launch:
    """Choose heads and warps of a program: eight channels of each half, one 16-byte load, a thread."""
    heads = 16 if num_items <= MANY_HEADS else 32
    num_warps = min(max(heads * triton.next_power_of_2(half) // (32 * 8), 1), 8)
    return Launch(rows_per_program=heads, num_warps=num_warps)


def explain_rotate_heads(
    qkv: Tensor,
    cos: Tensor,
    signed_sin: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    if not (cos.is_contiguous() and signed_sin.is_contiguous()):
        return "cos and signed_sin must be contiguous: call .contiguous() once and keep the result"
    others = {"cos": cos, "signed_sin": signed_sin, "x_scale": x_scale, "x_bias": x_bias}
    return explain_tensors(qkv, dtype or qkv.dtype, others)


def launch_rotate_heads(
    qkv: Tensor,
    cos: Tensor,
    signed_sin: Tensor,
    out: Tensor,
    *,
    num_heads: int,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    launch: Launch | None = None,
) -> KernelCall:
    """Return grid, arguments and options of `rotate_heads_kernel`; `out` is written, and may be `qkv`."""
    batch, tokens, channels = qkv.shape
    heads = 2 * num_heads if out is qkv else 3 * num_heads
    half = channels // (6 * num_heads)
    total = batch * tokens * heads
    launch = launch or choose_launch(total, half)
    arguments = (
        *(qkv, cos, signed_sin, x_scale, x_bias, out),
        *(total, qkv.stride(0), qkv.stride(1), out.stride(0), out.stride(1)),
    )
    options = {
        "TOKENS": tokens,
        "HEADS": heads,
        "TURNING": 2 * num_heads,
        "HALF": half,
        "BLOCK": triton.next_power_of_2(half),
        "ITEMS": launch.rows_per_program,
        "num_warps": launch.num_warps,
        **dependent_launch(qkv.device),
    }
    return KernelCall((triton.cdiv(total, launch.rows_per_program),), arguments, options)


def rotate_heads(
    qkv: Tensor,
    cos: Tensor,
    signed_sin: Tensor,
    *,
    num_heads: int,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    in_place: bool = False,
    dtype: torch.dtype | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """Turn the heads of query and key by the rotary angles: as the reference, by the kernel.

    Args:
        qkv: `[B, N, 3C]`, float16, bfloat16, float32 or int32.
        cos: `[N, D]`, contiguous.
        signed_sin: `[N, D]`, contiguous.
        num_heads: H.
        x_scale: float `[3C]`, pending factor of qkv.
        x_bias: `[3C]`, pending bias of qkv.
        in_place: Write query and key into qkv and return it; the value channels are not read either, so that
            their factor and bias stay pending.
        dtype: Float type of the result; that of qkv unless given.
        launch: Heads (`rows_per_program`) and warps of a program, for tuning.

    Returns:
        `[B, N, 3C]`, contiguous, or qkv itself.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    dtype = float_dtype(qkv, dtype)
    check_pending(qkv, x_scale, x_bias)
    check_rotate_heads(qkv, cos, signed_sin, num_heads, in_place=in_place, dtype=dtype)
    reason = explain_rotate_heads(qkv, cos, signed_sin, x_scale=x_scale, x_bias=x_bias, dtype=dtype)
    if reason is not None:
        raise ValueError(reason)
    out = qkv if in_place else torch.empty(qkv.shape, dtype=dtype, device=qkv.device)
    grid, arguments, options = launch_rotate_heads(
        qkv, cos, signed_sin, out, num_heads=num_heads, x_scale=x_scale, x_bias=x_bias, launch=launch
    )
    with device_guard(qkv):
        rotate_heads_kernel[grid](*arguments, **options)
    return out
