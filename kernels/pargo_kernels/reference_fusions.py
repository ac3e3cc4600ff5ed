"""What the fusions around the matrix products compute, in plain PyTorch: the executable definition.

Every function reads the product of a GEMM with what is still pending: a factor per channel (the scales of
a quantized GEMM) and a bias, `value(x) = x * x_scale + x_bias`. Everything runs in at least float32; the
only roundings are those to the float type of the results, where the docstrings say so. Rows may lie at any
stride. `dtype`, the float type of the results, is that of x unless given; an int32 x needs it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pargo_kernels.fusion_arguments import (
    Quantize,
    check_layer_norm,
    check_patchify,
    check_pending,
    check_rotate_heads,
    check_swiglu_layer_norm,
    float_dtype,
)
from pargo_kernels.reference_linear import at_least_float32

__all__ = [
    "Quantize",
    "bias_gelu",
    "patchify",
    "residual_layer_norm",
    "rotate_heads",
    "scale_bias",
    "swiglu_layer_norm",
]


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
) -> tuple[Tensor | None, Tensor]:
    """Add a product to the residual stream and normalise the sum.

    Args:
        x: `[B, N-lead, C]`, float or int32.
        residual: `[B or 1, N, C]`, or `None` for a sum of x alone.
        weight: `[C]` gain of the LayerNorm, or `None`.
        bias: `[C]` offset of the LayerNorm, or `None`.
        eps: Added to the variance.
        x_scale: float `[C]`, pending factor of x.
        x_bias: `[C]`, pending bias of x.
        lead: Rows in front of x for which the sum is the residual alone (the class token).
        quantize: Quantize the normalised rows.
        keep_sum: Return the sum; without it the first result is `None`.
        dtype: Float type of the results.

    Returns:
        The sum `[B, N, C]`, rounded to the float type, and `LayerNorm(sum) * weight + bias`, statistics
        from the rounded sum, same shape.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    dtype = float_dtype(x, dtype)
    check_pending(x, x_scale, x_bias)
    check_layer_norm(x, residual, weight, bias, lead)
    total = _value(x, x_scale, x_bias)
    if residual is not None:
        total = functional.pad(total, (0, 0, lead, 0)) + residual
    total = total.to(dtype)
    wide = at_least_float32(total)
    centred = wide - wide.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    normalised = _affine(centred * torch.rsqrt(variance + eps), weight, bias)
    return total if keep_sum else None, _round(normalised, dtype, quantize)


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
) -> Tensor:
    """Gate the hidden channels and normalise them: `LayerNorm(silu(gate) * up) * weight + bias`.

    Args:
        gate_up: `[B, N, 2F]`, the gate in the first F channels; float or int32.
        weight: `[F]` gain of the LayerNorm.
        bias: `[F]` offset of the LayerNorm.
        width: Channels that count; the statistics leave out the others, which pad to F.
        eps: Added to the variance.
        x_scale: float `[2F]`, pending factor of gate_up.
        x_bias: `[2F]`, pending bias of gate_up.
        quantize: Quantize the result.
        dtype: Float type of the result.

    Returns:
        `[B, N, F]`; channels from `width` on are 0. The gated channels are not rounded on the way.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    dtype = float_dtype(gate_up, dtype)
    check_pending(gate_up, x_scale, x_bias)
    check_swiglu_layer_norm(gate_up, weight, bias, width)
    gate, up = _value(gate_up, x_scale, x_bias).chunk(2, dim=-1)
    hidden = (gate * torch.sigmoid(gate) * up)[..., :width]
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    normalised = _affine(centred * torch.rsqrt(variance + eps), weight[:width], bias[:width])
    return _round(functional.pad(normalised, (0, weight.shape[0] - width)), dtype, quantize)


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
) -> Tensor:
    """Turn the heads of query and key by the rotary angles: `x * cos + swap_halves(x) * signed_sin`.

    Args:
        qkv: `[B, N, 3C]`, query, key and value side by side; float or int32.
        cos: `[N, D]`, D = C / num_heads.
        signed_sin: `[N, D]`, negative sines in the first half, positive ones in the second.
        num_heads: H.
        x_scale: float `[3C]`, pending factor of qkv.
        x_bias: `[3C]`, pending bias of qkv.
        in_place: Write query and key into qkv and return it; the value channels are not touched: their factor
            and bias stay pending. Only without change of dtype.
        dtype: Float type of the result.

    Returns:
        `[B, N, 3C]`: query and key turned, the value with factor and bias only; rounded once.

    Raises:
        ValueError: A shape or dtype does not fit, or `in_place` cannot be had.
    """
    dtype = float_dtype(qkv, dtype)
    check_pending(qkv, x_scale, x_bias)
    check_rotate_heads(qkv, cos, signed_sin, num_heads, in_place=in_place, dtype=dtype)
    heads = _value(qkv, x_scale, x_bias).unflatten(-1, (3, num_heads, -1))  # [B, N, 3, H, D]
    query_key, value = heads[:, :, :2], heads[:, :, 2:]
    first, second = query_key.chunk(2, dim=-1)
    table_shape = (cos.shape[0], 1, 1, cos.shape[1])
    turned = query_key * cos.reshape(table_shape)
    turned = turned + torch.cat([second, first], dim=-1) * signed_sin.reshape(table_shape)
    if in_place:
        qkv.unflatten(-1, (3, num_heads, -1))[:, :, :2] = turned.to(dtype)
        return qkv
    return torch.cat([turned, value], dim=2).flatten(2).to(dtype)


def bias_gelu(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`gelu(value(x))` by the error function; x `[..., C]`, float or int32, same shape back."""
    dtype = float_dtype(x, dtype)
    check_pending(x, x_scale, x_bias)
    return _round(functional.gelu(_value(x, x_scale, x_bias)), dtype, quantize)


def scale_bias(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`value(x)`, rounded to the float type and quantized if asked; x `[..., C]`, same shape back."""
    dtype = float_dtype(x, dtype)
    check_pending(x, x_scale, x_bias)
    return _round(_value(x, x_scale, x_bias), dtype, quantize)


def patchify(
    pixels: Tensor,
    *,
    image_size: int,
    patch_size: int,
    padded_width: int,
    dtype: torch.dtype,
    pixel_scale: Tensor | None = None,
    pixel_shift: Tensor | None = None,
) -> Tensor:
    """Lay the patches of an image out as rows, so that the patch convolution is one matrix product.

    Args:
        pixels: `[B, channels, R*S, C*S]`, uint8 or float; R x C tiles of S = `image_size` pixels.
        image_size: S, the side of a tile.
        patch_size: p, the side of a patch.
        padded_width: Columns of the result, at least channels * p * p; 8-bit GEMMs want a multiple of 16.
        dtype: Float type of the result.
        pixel_scale: float32 `[channels]`, or `None`.
        pixel_shift: float32 `[channels]`: `value = pixel * scale + shift`, or `None`.

    Returns:
        `[B*R*C, (S/p)^2, padded_width]`, tiles and patches row by row, columns ordered (channel, row,
        column) as in `Conv2d.weight.flatten(1)`; columns beyond channels * p * p are 0.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    check_patchify(pixels, image_size, patch_size, padded_width, pixel_scale, pixel_shift)
    values = at_least_float32(pixels)
    if pixel_scale is not None:
        values = values * pixel_scale[:, None, None]
    if pixel_shift is not None:
        values = values + pixel_shift[:, None, None]
    grid = image_size // patch_size
    values = values.unflatten(-1, (-1, grid, patch_size)).unflatten(-4, (-1, grid, patch_size))
    rows = values.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [B, R, C, grid, grid, channels, p, p]
    rows = rows.flatten(5).flatten(3, 4).flatten(0, 2)
    return functional.pad(rows, (0, padded_width - rows.shape[-1])).to(dtype)


def _value(x: Tensor, x_scale: Tensor | None, x_bias: Tensor | None) -> Tensor:
    value = at_least_float32(x)
    if x_scale is not None:
        value = value * x_scale
    return value if x_bias is None else value + x_bias


def _affine(normalised: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        normalised = normalised * weight
    return normalised if bias is None else normalised + bias


def _round(value: Tensor, dtype: torch.dtype, quantize: Quantize | None) -> Tensor:
    value = value.to(dtype)
    if quantize is None:
        return value
    scaled = at_least_float32(value) / quantize.scale.reshape(())
    if quantize.dtype == torch.int8:
        return scaled.round().clamp(-128, 127).to(torch.int8)  # torch rounds halves to even
    return scaled.clamp(-448, 448).to(torch.float8_e4m3fn)
