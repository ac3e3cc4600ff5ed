"""What `triton_linear` computes, in plain PyTorch: a linear layer that normalises its input by the way.

With post-norm layers every linear reads LayerNorm(u). Instead of writing the normalised rows, the kernel that
computes u also writes the statistics of its rows, and the linear that reads u corrects its product with them:

    LayerNorm(u) W^T + b = rstd (u W'^T - mean column_sum(W')) + b'        W' = W diag(gain), b' = b + W shift

`fold_norm` prepares W', b' and the column sums once. Where the normalised rows are also the residual of the
layer's end, that end normalises them again from the same statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "Activation",
    "FoldedLinear",
    "NormalisedResidual",
    "RowStatistics",
    "at_least_float32",
    "check_fused_linear",
    "fold_norm",
    "fused_linear",
    "row_statistics",
]

Activation = Literal["none", "gelu"]


@dataclass(frozen=True)
class RowStatistics:
    """Mean and centred sum of squares of every chunk of every row.

    Kept by chunk, so that each program of the kernel that computes the rows can write its own; combining them
    by Chan's formula cancels nothing, unlike a sum of squares.

    Attributes:
        values: float32 `[2, chunks, rows]`: means, then centred sums of squares.
        chunk: Channels of a chunk (the last one may have fewer).
        width: Channels of a row.
    """

    values: Tensor
    chunk: int
    width: int

    def combine(self, eps: float) -> tuple[Tensor, Tensor]:
        """Return mean and reciprocal standard deviation of the rows, float32 `[rows]` each."""
        means, squares = self.values
        start = torch.arange(means.shape[0], device=means.device) * self.chunk
        counts = (self.width - start).clamp(0, self.chunk).to(means.dtype)[:, None]
        mean = (means * counts).sum(0) / self.width
        variance = (squares.sum(0) + ((means - mean).square() * counts).sum(0)) / self.width
        return mean, torch.rsqrt(variance + eps)


@dataclass(frozen=True)
class NormalisedResidual:
    """A residual that is LayerNorm(rows) of rows that were not normalised yet.

    Attributes:
        statistics: Of the rows.
        gain: float32 `[N]`, weight of the norm.
        shift: float32 `[N]`, bias of the norm.
        eps: Added to the variance.
    """

    statistics: RowStatistics
    gain: Tensor
    shift: Tensor
    eps: float


@dataclass(frozen=True)
class FoldedLinear:
    """Weights of a linear, with the affine part of the norm in front of it folded in.

    Attributes:
        weight: `[N, K]` in the float type of the activations.
        bias: float32 `[N]`.
        column_sum: float32 `[N]`, the sum of each row of `weight`; `None` if its input is not normalised.
        eps: Of the norm.
    """

    weight: Tensor
    bias: Tensor
    column_sum: Tensor | None = None
    eps: float = 0.0


def fold_norm(
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 0.0,
) -> FoldedLinear:
    """Fold a norm's affine part into the linear behind it; without `gain` only the types are prepared.

    Args:
        weight: `[N, K]`.
        bias: `[N]` or `None`.
        gain: `[K]`, the norm's weight.
        shift: `[K]`, the norm's bias.
        eps: The norm's.
    """
    wide = at_least_float32(weight)
    wide_bias = torch.zeros_like(wide[:, 0]) if bias is None else at_least_float32(bias)
    if gain is None:
        return FoldedLinear(weight.contiguous(), wide_bias)
    if shift is not None:
        wide_bias = wide_bias + wide @ shift.to(wide.dtype)
    folded = (wide * gain.to(wide.dtype)).to(weight.dtype).contiguous()
    # Of the rounded weights: what the product multiplies the mean with.
    return FoldedLinear(folded, wide_bias, at_least_float32(folded).sum(1), eps)


def row_statistics(rows: Tensor, chunk: int) -> RowStatistics:
    """Compute the statistics of `rows` `[..., N]`, as `fused_linear` writes them."""
    wide = at_least_float32(rows).flatten(0, -2)
    means, squares = [], []
    for part in wide.split(chunk, dim=1):
        mean = part.mean(1)
        means.append(mean)
        squares.append((part - mean[:, None]).square().sum(1))
    values = torch.stack([torch.stack(means), torch.stack(squares)])
    return RowStatistics(values, chunk, wide.shape[1])


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
) -> tuple[Tensor, RowStatistics | None]:
    """Compute `activation(LayerNorm(x) weight^T + bias) + residual`, and the statistics of the result.

    Args:
        x: `[B, T, K]`.
        linear: The weights; with a `column_sum` exactly if `statistics` are given.
        statistics: Of the rows of x: x is normalised. Without, it is taken as it is.
        activation: `gelu` is the exact one, with erf.
        residual: `[B or 1, T, N]`.
        residual_norm: How to normalise the residual first; its statistics cover the rows of `residual`.
        keep_statistics: Return the statistics of the result.
        dtype: Of the result; that of x unless given.

    Returns:
        `[B, T, N]` and its statistics (or `None`). Sums, norms and activation are computed in float32.

    Raises:
        ValueError: The shapes do not fit, or only one of `statistics` and `column_sum` is there.
    """
    check_fused_linear(x, linear, statistics, residual, residual_norm)
    values = functional.linear(at_least_float32(x), at_least_float32(linear.weight))
    if statistics is not None and linear.column_sum is not None:
        mean, rstd = (part.view(*x.shape[:-1], 1) for part in statistics.combine(linear.eps))
        values = (values - mean * linear.column_sum) * rstd
    values = values + linear.bias
    if activation == "gelu":
        values = functional.gelu(values)
    if residual is not None:
        wide = at_least_float32(residual)
        if residual_norm is not None:
            parts = residual_norm.statistics.combine(residual_norm.eps)
            mean, rstd = (part.view(*residual.shape[:-1], 1) for part in parts)
            wide = (wide - mean) * rstd * residual_norm.gain + residual_norm.shift
        values = values + wide
    result = values.to(dtype or x.dtype)
    return result, row_statistics(result, result.shape[-1]) if keep_statistics else None


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_fused_linear(
    x: Tensor,
    linear: FoldedLinear,
    statistics: RowStatistics | None,
    residual: Tensor | None,
    residual_norm: NormalisedResidual | None,
) -> None:
    """Check the shapes of a `fused_linear`.

    Raises:
        ValueError: They do not fit.
    """
    columns, depth = linear.weight.shape
    if x.ndim != 3 or x.shape[-1] != depth:
        raise ValueError(f"x has shape {list(x.shape)}, expected [batch, tokens, {depth}]")
    if (statistics is None) != (linear.column_sum is None):
        raise ValueError(
            "statistics of x and column sums of the weight belong together: fold the norm into the linear "
            "(fold_norm with gain) exactly if x is to be normalised"
        )
    rows = x.shape[0] * x.shape[1]
    if statistics is not None and (statistics.values.shape[-1], statistics.width) != (rows, depth):
        raise ValueError(
            f"the statistics of x cover {statistics.values.shape[-1]} rows of {statistics.width} channels, "
            f"x has {rows} of {depth}"
        )
    if residual is None:
        if residual_norm is not None:
            raise ValueError("residual_norm is given without a residual; pass both or none")
        return
    expected = (x.shape[1], columns)
    if (
        residual.ndim != 3
        or residual.shape[0] not in (1, x.shape[0])
        or tuple(residual.shape[1:]) != expected
    ):
        raise ValueError(
            f"residual has shape {list(residual.shape)}, expected [{x.shape[0]} or 1, {expected[0]}, {expected[1]}]"
        )
    if residual_norm is not None:
        covered = residual_norm.statistics
        found = (covered.values.shape[-1], covered.width)
        if found != (residual.shape[0] * residual.shape[1], columns):
            raise ValueError(f"the statistics of the residual cover {found} rows and channels, not its own")
