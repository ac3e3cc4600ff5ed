"""What the fusions take: `Quantize`, the float type of results, and the checks of shapes and dtypes.

The reference and the Triton kernels share these checks, so that both refuse the same input in the same
words. What only a kernel cannot do is said by the kernel's own `explain_...` function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Quantize",
    "check_layer_norm",
    "check_patchify",
    "check_pending",
    "check_rotate_heads",
    "check_swiglu_layer_norm",
    "float_dtype",
]

_FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_QUANTIZED_DTYPES = (torch.float8_e4m3fn, torch.int8)


@dataclass(frozen=True)
class Quantize:
    """How a result is quantized: `saturate(round_half_even(value / scale))`.

    The value is rounded to the float type of the operation before it is divided, as in a graph with Q/DQ.

    Attributes:
        scale: float32, one element, on the device of the tensors.
        dtype: `torch.float8_e4m3fn` or `torch.int8`.

    Raises:
        ValueError: The scale is not one float32 number, or the dtype is neither of the two.
    """

    scale: Tensor
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.scale.numel() != 1 or self.scale.dtype != torch.float32:
            raise ValueError(
                f"the scale of Quantize is {_describe(self.scale)}, expected one float32 number (per tensor)"
            )
        if self.dtype not in _QUANTIZED_DTYPES:
            raise ValueError(
                f"Quantize to {self.dtype} is not possible, expected one of {list(_QUANTIZED_DTYPES)}"
            )


def float_dtype(x: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the float type of the results: `dtype`, or that of x.

    Raises:
        ValueError: It is not a float type; for an integer x, `dtype` must be given.
    """
    if x.dtype not in {*_FLOAT_DTYPES, torch.int32}:
        raise ValueError(f"x is {x.dtype}, expected a float type or int32 (the product of an INT8 GEMM)")
    chosen = x.dtype if dtype is None else dtype
    if chosen not in _FLOAT_DTYPES:
        raise ValueError(f"the results cannot be {chosen}: pass dtype=, one of {list(_FLOAT_DTYPES)}")
    return chosen


def check_pending(x: Tensor, x_scale: Tensor | None, x_bias: Tensor | None) -> None:
    """Check the pending factor and bias of a product: `[C]`, C the last axis of x."""
    check_channels(x.shape[-1], x_scale=x_scale, x_bias=x_bias)


def check_layer_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, lead: int
) -> None:
    """Check `residual_layer_norm`: x `[B, N-lead, C]`, residual `[B or 1, N, C]`, weight and bias `[C]`."""
    _check_rank("x", x, "[B, N-lead, C]")
    batch, tokens, channels = x.shape
    if lead < 0 or (lead and residual is None):
        raise ValueError(
            f"lead is {lead}: rows in front of x come from the residual; pass lead=0 or a residual"
        )
    if residual is not None:
        _check_rank("residual", residual, "[B or 1, N, C]")
        if residual.shape[0] not in {1, batch} or tuple(residual.shape[1:]) != (tokens + lead, channels):
            raise ValueError(
                f"residual is {_describe(residual)}, expected [{batch} or 1, {tokens + lead}, {channels}] "
                f"for x {_describe(x)} and lead {lead}"
            )
    check_channels(channels, weight=weight, bias=bias)


def check_swiglu_layer_norm(gate_up: Tensor, weight: Tensor, bias: Tensor, width: int) -> None:
    """Check `swiglu_layer_norm`: gate_up `[B, N, 2F]`, weight and bias `[F]`, 0 < width <= F."""
    _check_rank("gate_up", gate_up, "[B, N, 2F]")
    channels, odd = divmod(gate_up.shape[-1], 2)
    if odd:
        raise ValueError(f"gate_up is {_describe(gate_up)}: its last axis must hold gate and up, 2F channels")
    if not 0 < width <= channels:
        raise ValueError(f"width is {width}, expected 1 to {channels}, the channels of gate and of up")
    check_channels(channels, weight=weight, bias=bias)


def check_rotate_heads(
    qkv: Tensor,
    cos: Tensor,
    signed_sin: Tensor,
    num_heads: int,
    *,
    in_place: bool,
    dtype: torch.dtype,
) -> None:
    """Check `rotate_heads`: qkv `[B, N, 3C]`, tables `[N, D]` with D = C / num_heads even."""
    _check_rank("qkv", qkv, "[B, N, 3C]")
    if num_heads < 1 or qkv.shape[-1] % (6 * num_heads):
        raise ValueError(
            f"qkv is {_describe(qkv)}: its last axis must be 3 x {num_heads} heads of an even dimension"
        )
    table = (qkv.shape[1], qkv.shape[-1] // (3 * num_heads))
    for name, tensor in (("cos", cos), ("signed_sin", signed_sin)):
        if tuple(tensor.shape) != table:
            raise ValueError(f"{name} is {_describe(tensor)}, expected {list(table)}, one row a token")
    if in_place and dtype != qkv.dtype:
        raise ValueError(
            f"in_place keeps the dtype, and {qkv.dtype} is to become {dtype}; pass in_place=False"
        )


def check_patchify(
    pixels: Tensor,
    image_size: int,
    patch_size: int,
    padded_width: int,
    pixel_scale: Tensor | None,
    pixel_shift: Tensor | None,
) -> None:
    """Check `patchify`: pixels `[B, channels, R*S, C*S]`, S a multiple of the patch size."""
    if pixels.ndim != 4 or pixels.shape[-1] % image_size or pixels.shape[-2] % image_size:
        raise ValueError(
            f"pixels is {_describe(pixels)}, expected [batch, channels, height, width] with both sides a "
            f"multiple of {image_size}"
        )
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
    if pixels.dtype not in {*_FLOAT_DTYPES, torch.uint8}:
        raise ValueError(f"pixels is {pixels.dtype}, expected uint8 or a float type")
    values = pixels.shape[1] * patch_size**2
    if padded_width < values:
        raise ValueError(
            f"padded_width is {padded_width}, a patch has {values} values: pad to {values} or more"
        )
    check_channels(pixels.shape[1], pixel_scale=pixel_scale, pixel_shift=pixel_shift)


def check_channels(channels: int, **vectors: Tensor | None) -> None:
    """Check that each vector that is given holds one number a channel."""
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise ValueError(f"{name} is {_describe(vector)}, expected [{channels}], one number a channel")


def _check_rank(name: str, tensor: Tensor, expected: str) -> None:
    if tensor.ndim != 3:
        raise ValueError(f"{name} is {_describe(tensor)}, expected {expected}")


def _describe(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}"
