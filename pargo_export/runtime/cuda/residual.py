"""Norms, and products that go into a residual stream with the norm behind them.

Two ways to add a product to the residual stream (`accumulate`):

    sum in the fusion    product; then one kernel reads product and residual, writes their sum and the norm
    sum in the product   the GEMM adds to the residual in place; then one kernel reads it and writes the norm

The second moves fewer bytes. The bias must not cost a pass of its own there: it never goes into the stream. The norms
add the sum of all biases that were left out so far, a constant, while they read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pargo_export.runtime.cuda.linear import FloatLinear, Linear
from pargo_export.runtime.cuda.weights import Weights
from pargo_kernels import Quantize, residual_layer_norm
from pargo_kernels.reference_linear import at_least_float32

__all__ = ["Norm", "ResidualWrite", "load_norm"]


@dataclass(frozen=True)
class Norm:
    """A LayerNorm; `None` in place of gain and offset that were folded away.

    Attributes:
        weight: `[C]`.
        bias: `[C]`.
        eps: Added to the variance.
        quantize: How its reader wants the result.
    """

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    quantize: Quantize | None = None

    def __call__(self, x: Tensor, *, x_scale: Tensor | None = None, x_bias: Tensor | None = None) -> Tensor:
        """`[B, N, C]` with its pending factor and bias -> same shape, quantized if its reader wants that."""
        return residual_layer_norm(
            x,
            None,
            self.weight,
            self.bias,
            eps=self.eps,
            x_scale=x_scale,
            x_bias=x_bias,
            quantize=self.quantize,
            keep_sum=False,
        )[1]


class ResidualWrite:
    """A linear whose product is added to the residual stream, and the norm behind the sum.

    Args:
        linear: Writes to the stream.
        norm: Reads the sum.
        dtype: Float type of the variant.
        accumulate: Add in the GEMM; quantized linears cannot, their product has factors pending.
        left_out: float32 `[C]`, biases that the stream does not hold yet; `None` if it holds all.
        lead: Rows in front of the product's, for which the sum is the stream alone (the class token).

    Attributes:
        left_out: Biases that the stream does not hold after this write.
    """

    def __init__(
        self,
        linear: Linear,
        norm: Norm,
        dtype: torch.dtype,
        *,
        accumulate: bool,
        left_out: Tensor | None = None,
        lead: int = 0,
    ) -> None:
        self._linear, self._norm, self._dtype, self._lead = linear, norm, dtype, lead
        self._adder = linear if accumulate and isinstance(linear, FloatLinear) else None
        if self._adder is not None:
            self._adder.arrange_for_sums()
        biases = [at_least_float32(bias) for bias in (left_out, linear.bias) if bias is not None]
        self._bias = sum(biases[1:], biases[0]) if biases else None
        self.left_out = self._bias if self._adder is not None else None

    def __call__(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new stream and its norm.

        Args:
            x: `[B, N-lead, K]`, as the linear wants it.
            residual: `[B or 1, N, C]`; overwritten when the GEMM adds.

        Returns:
            The stream `[B, N, C]` and the norm of it, same shape.
        """
        total, normalised = self._add(x, residual, keep_sum=True)
        return residual if total is None else total, normalised

    def close(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the norm alone: nothing reads the stream after it."""
        return self._add(x, residual, keep_sum=False)[1]

    def _add(self, x: Tensor, residual: Tensor, *, keep_sum: bool) -> tuple[Tensor | None, Tensor]:
        norm = self._norm
        if self._adder is not None:
            self._adder.add_to(x, residual)
            return residual_layer_norm(
                residual,
                None,
                norm.weight,
                norm.bias,
                eps=norm.eps,
                x_bias=self._bias,
                quantize=norm.quantize,
                keep_sum=False,
            )
        product = self._linear(x)
        return residual_layer_norm(
            product.value,
            residual,
            norm.weight,
            norm.bias,
            eps=norm.eps,
            x_scale=product.x_scale,
            x_bias=self._bias,
            lead=self._lead,
            quantize=norm.quantize,
            keep_sum=keep_sum,
            dtype=self._dtype,
        )


def load_norm(weights: Weights, path: str, eps: float, quantize: Quantize | None = None) -> Norm:
    """Return the LayerNorm of a module path; a gain of ones without offset, as graphs need one, becomes `None`."""
    weight, bias = weights.get(f"{path}.weight"), weights.get(f"{path}.bias")
    if weight is not None and bias is None and bool((weight == 1).all()):
        weight = None
    return Norm(weight, bias, eps, quantize)
