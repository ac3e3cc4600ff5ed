"""The matrix products that the fusions stand between: library GEMMs on a GPU, an exact emulation elsewhere.

All take activations `[M, K]` and weights `[N, K]` and return `[M, N]`, without transposing memory. The products of
8-bit numbers leave factors per channel to the next fusion (`x_scale`): a GEMM of the library has one scale a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "FLOAT8_ALIGNMENT",
    "INT8_ALIGNMENT",
    "float8_product",
    "float_product",
    "float_product_add",
    "int8_product",
]

# What the libraries demand of K and N (cuBLASLt: 16 bytes for FP8; `torch._int_mm`: 8 numbers).
FLOAT8_ALIGNMENT = 16
INT8_ALIGNMENT = 8
_INT8_MIN_ROWS = 17  # `torch._int_mm` takes no fewer


def float_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight^T + bias` in the float type of x; float16 and bfloat16 are summed in float32.

    Args:
        x: `[M, K]`.
        weight: `[N, K]`, the dtype of x.
        bias: `[N]`, the dtype of x, or `None`.
    """
    return functional.linear(x, weight, bias)


def float_product_add(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """Add `x @ weight^T` to `residual` `[M, N]` in place and return it; the sum is rounded once.

    Args:
        x: `[M, K]`, no part of `residual`.
        weight: `[N, K]`, the dtype of x.
        residual: `[M, N]`, contiguous, the dtype of x.
    """
    return torch.addmm(residual, x, weight.t(), out=residual)


def float8_product(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    *,
    dtype: torch.dtype,
    fast_accumulation: bool = True,
) -> Tensor:
    """`(x @ weight^T) * x_scale * weight_scale`.

    Args:
        x: float8_e4m3fn `[M, K]`; on a GPU K is a multiple of 16.
        weight: float8_e4m3fn `[N, K]`; on a GPU N is a multiple of 16.
        x_scale: float32, one number.
        weight_scale: float32, one number.
        dtype: Float type of the result.
        fast_accumulation: Let Hopper keep partial sums in fewer bits (about 14 of the mantissa); elsewhere without effect.
    """
    if x.is_cuda:
        return torch._scaled_mm(  # noqa: SLF001 - the only GEMM of PyTorch for float8
            x,
            weight.t(),
            scale_a=x_scale,
            scale_b=weight_scale,
            out_dtype=dtype,
            use_fast_accum=fast_accumulation,
        )
    product = functional.linear(x.float(), weight.float())
    return (product * x_scale * weight_scale).to(dtype)


def int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight^T` as int32, exact.

    Args:
        x: int8 `[M, K]`; on a GPU K is a multiple of 8.
        weight: int8 `[N, K]`; on a GPU N is a multiple of 8.
    """
    if not x.is_cuda:
        return functional.linear(x.double(), weight.double()).to(torch.int32)  # exact: far below 2^53
    rows = x.shape[0]
    if rows < _INT8_MIN_ROWS:
        x = functional.pad(x, (0, 0, 0, _INT8_MIN_ROWS - rows))
    product: Tensor = torch._int_mm(x, weight.t())  # noqa: SLF001 - the only GEMM of PyTorch for int8
    return product[:rows]
