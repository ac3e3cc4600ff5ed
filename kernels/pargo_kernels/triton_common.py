"""What the Triton kernels share: launches, and for the fusions pending factors, quantization, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import Quantize
from pargo_kernels.triton_device import INTERPRETED

__all__ = [
    "KernelCall",
    "Launch",
    "apply_pending",
    "explain_tensors",
    "gelu",
    "load_inverse_scale",
    "load_vector",
    "quantize_value",
    "reciprocal",
    "row_strides",
    "sigmoid",
    "triton_dtype",
    "write_rounded",
]

_INTERPRETED = tl.constexpr(INTERPRETED)

_FLOAT_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@dataclass(frozen=True)
class Launch:
    """How a kernel is cut into programs.

    Attributes:
        rows_per_program: Rows that one program takes (heads for `rotate_heads`); a power of two.
        num_warps: Warps of one program; a power of two.

    Raises:
        ValueError: One of them is not a power of two.
    """

    rows_per_program: int
    num_warps: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} of Launch is {value}, expected a power of two")


class KernelCall(NamedTuple):
    """One launch: `kernel[grid](*arguments, **options)`.

    Attributes:
        grid: Programs by axis.
        arguments: Tensors and numbers, in the kernel's order; `None` (an absent tensor) is a constexpr.
        options: The constexpr parameters by name, and how to compile: `num_warps`, `num_stages`.
    """

    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@triton.jit
def apply_pending(
    x: tl.tensor,
    channel: tl.tensor,
    mask: tl.tensor,
    x_scale_ptr: tl.tensor | None,
    x_bias_ptr: tl.tensor | None,
) -> tl.tensor:
    """Return `x * x_scale + x_bias` in float32; an absent vector is `None`."""
    value = x.to(tl.float32)
    if x_scale_ptr is not None:
        value = value * tl.load(x_scale_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    if x_bias_ptr is not None:
        value = value + tl.load(x_bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """`1 / (1 + exp(-x))` by two instructions of the special function unit, each exact to about 2^-22.

    A division is a dozen instructions a value, beside the few that a SwiGLU has otherwise.
    """
    if _INTERPRETED:  # it knows no assembly
        result = tl.sigmoid(x)
    else:
        result = reciprocal(1.0 + tl.exp2(x * -1.4426950408889634))
    return result


@triton.jit
def reciprocal(x: tl.tensor) -> tl.tensor:
    """`1 / x` in float32, exact to 2^-23; on a GPU one instruction."""
    if _INTERPRETED:
        result = 1.0 / x
    else:
        result = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@triton.jit
def gelu(x: tl.tensor) -> tl.tensor:
    """The GELU by the error function, to 1.5e-7: Abramowitz and Stegun, 7.1.26.

    A third of the instructions of the library's `erf`, whose last bits no half-precision result keeps.
    """
    z = tl.abs(x) * 0.7071067811865476  # 1 / sqrt(2)
    t = reciprocal(1.0 + 0.3275911 * z)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail = series * tl.exp2(z * z * -1.4426950408889634)  # 1 - erf(z)
    return 0.5 * (x + tl.abs(x) * (1.0 - tail))


@triton.jit
def load_vector(
    pointer: tl.tensor | None, index: tl.tensor, mask: tl.tensor, ABSENT: tl.constexpr
) -> tl.tensor:
    """Return part of a vector in float32; the number ABSENT in place of an absent vector, `None`."""
    vector = ABSENT
    if pointer is not None:
        vector = tl.load(pointer + index, mask=mask, other=0.0).to(tl.float32)
    return vector


@triton.jit
def quantize_value(value: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Saturate float32 values and round them, half to even, to int8 or float8 e4m3.

    Adding and subtracting 1.5 * 2^23 * step rounds to multiples of the step: the spacing of float32
    there is the step, and the addition rounds half to even. Nothing may reassociate float additions, so
    the compiler keeps both. A GPU casts to e4m3 by one instruction that rounds so by itself. The interpreter's
    cast rounds wrongly: there the step is an eighth of the value's power of two, and below 2^-6 (subnormals)
    it stays 2^-9.
    """
    if DTYPE == tl.int8:  # noqa: SIM300  # both are types
        saturated = tl.clamp(value, -128.0, 127.0)
        rounded = (saturated + 12582912.0) - 12582912.0
    else:
        rounded = tl.clamp(value, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)  # a NaN stays one
        if _INTERPRETED:
            power_of_two = (rounded.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
            magic = tl.maximum(power_of_two, 0.015625) * 1572864.0  # 2^-6; 1.5 * 2^23 / 8
            rounded = (rounded + magic) - magic
    return rounded.to(DTYPE)


@triton.jit
def load_inverse_scale(quantize_scale_ptr: tl.tensor | None) -> tl.tensor:
    """Return 1 / scale, 1 if nothing is quantized; kernels load it early, beside everything else they read.

    One reciprocal a program and one product a value take the place of a division a value: at most one
    step apart from it, where the quotient lies within rounding of the middle of two steps.
    """
    inverse_scale = 1.0
    if quantize_scale_ptr is not None:
        inverse_scale = tl.div_rn(1.0, tl.load(quantize_scale_ptr))
    return inverse_scale


@triton.jit
def write_rounded(
    out_ptrs: tl.tensor, value: tl.tensor, mask: tl.tensor, inverse_scale: tl.tensor, FLOAT: tl.constexpr
) -> None:
    """Round to the float type and store; if the output has another type, quantize to that first."""
    rounded = value.to(FLOAT)
    if out_ptrs.dtype.element_ty == FLOAT:
        tl.store(out_ptrs, rounded, mask=mask)
    else:
        scaled = rounded.to(tl.float32) * inverse_scale
        tl.store(out_ptrs, quantize_value(scaled, out_ptrs.dtype.element_ty), mask=mask)


def row_strides(x: Tensor) -> tuple[int, int, int]:
    """Return tokens, batch stride and row stride of `[..., C]` seen as `[batch, tokens, C]`.

    Rows at one stride are `[rows, 1, C]`: nothing is divided in the kernel then, and one compiled kernel
    serves every number of rows. More than three axes have to be contiguous.
    """
    if x.ndim > 3:
        x = x.view(-1, *x.shape[-2:])
    if x.ndim < 2:
        return 1, x.shape[-1], x.shape[-1]
    row_stride = x.stride(-2)
    if x.ndim == 2 or x.shape[0] == 1 or x.stride(0) == x.shape[1] * row_stride:
        return 1, row_stride, row_stride
    return x.shape[1], x.stride(0), row_stride


def triton_dtype(dtype: torch.dtype) -> tl.dtype:
    """Return Triton's name of a float type that the kernels take."""
    return _FLOAT_DTYPES[dtype]


def explain_tensors(
    x: Tensor,
    dtype: torch.dtype,
    others: Mapping[str, Tensor | None],
    quantize: Quantize | None = None,
    *,
    any_stride: bool = False,
) -> str | None:
    """Return why the kernels cannot take these tensors: device, dtype or layout; `None` if they can.

    Args:
        x: The tensor that the operation reads.
        dtype: Float type of the results.
        others: Further tensors by name, their last axis contiguous; `None` for absent ones.
        quantize: The quantization of the result, if any.
        any_stride: Whether the last axis of x may lie at any stride; else it must be contiguous.
    """
    tensors = {"x": x, **{name: tensor for name, tensor in others.items() if tensor is not None}}
    if quantize is not None:
        tensors["the scale of quantize"] = quantize.scale
    for name, tensor in tensors.items():
        if tensor.device != x.device or (not tensor.is_cuda and not INTERPRETED):
            return f"{name} is on {tensor.device}, expected the CUDA device of all tensors"
        if tensor.dtype == torch.float64:
            return f"{name} is float64, the kernels compute in float32"
        strided = tensor.ndim > 0 and tensor.shape[-1] > 1 and tensor.stride(-1) != 1
        if strided and not (any_stride and tensor is x):
            return (
                f"{name} has stride {tensor.stride(-1)} along its last axis, expected 1: call .contiguous()"
            )
    if dtype not in _FLOAT_DTYPES:
        return f"the results would be {dtype}, the kernels write {[str(known) for known in _FLOAT_DTYPES]}"
    if quantize is not None and quantize.dtype == torch.float8_e4m3fn and x.is_cuda:
        capability = torch.cuda.get_device_capability(x.device)
        if capability < (8, 9):
            return (
                f"float8 needs compute capability 8.9, this GPU has {capability[0]}.{capability[1]}: use int8"
            )
    return None
