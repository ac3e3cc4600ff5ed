"""Where the full-size model launches `fused_linear`: the projector at small batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import triton

from pargo_kernels import triton_linear
from pargo_kernels.aot_model import EPS, LLM_WIDTH, QUERIES, QUERY_FFN, QUERY_WIDTH, Site, meta
from pargo_kernels.aot_targets import Chip
from pargo_kernels.reference_linear import Activation, FoldedLinear, NormalisedResidual, RowStatistics
from pargo_kernels.triton_common import KernelCall

__all__ = ["linear_sites"]


@dataclass(frozen=True)
class _Product:
    """A linear of the projector that the fused program runs by its own kernel.

    Attributes:
        variant: Name in `Site.variant`.
        depth: Channels of x.
        columns: Channels of the result.
        activation: After the bias.
        adds_to: The hidden state that it adds to: `constant`, the learned queries, the same for all images and not
            to be normalised, or `normalised`, of an earlier sum; `None` if it reads the hidden state, through a norm.
    """

    variant: str
    depth: int
    columns: int
    activation: Activation = "none"
    adds_to: Literal["constant", "normalised"] | None = None


_PRODUCTS = (
    _Product("qkv", QUERY_WIDTH, 3 * QUERY_WIDTH),
    _Product("query", QUERY_WIDTH, QUERY_WIDTH),
    _Product("up", QUERY_WIDTH, QUERY_FFN, "gelu"),
    _Product("to LLM", QUERY_WIDTH, LLM_WIDTH),
    _Product("first output", QUERY_WIDTH, QUERY_WIDTH, adds_to="constant"),
    _Product("output", QUERY_WIDTH, QUERY_WIDTH, adds_to="normalised"),
    _Product("down", QUERY_FFN, QUERY_WIDTH, adds_to="normalised"),
)


def _linear(product: _Product, batch: int, dtype: torch.dtype, chip: Chip) -> KernelCall:
    rows, columns, capability = batch * QUERIES, product.columns, divmod(chip.arch, 10)

    def statistics(width: int) -> RowStatistics:
        """Of a hidden state that a writing product made."""
        tiles = triton_linear.choose_tiles(rows, width, capability)
        return RowStatistics(meta(2, triton.cdiv(width, tiles.columns), rows), tiles.columns, width)

    reads = product.adds_to is None
    linear = FoldedLinear(
        meta(columns, product.depth, dtype=dtype),
        meta(columns),
        meta(columns) if reads else None,
        EPS if reads else 0.0,
    )
    residual = residual_norm = None
    if not reads:
        residual = meta(1 if product.adds_to == "constant" else batch, QUERIES, columns, dtype=dtype)
    if product.adds_to == "normalised":
        residual_norm = NormalisedResidual(statistics(columns), meta(columns), meta(columns), EPS)
    return triton_linear.launch_fused_linear(
        meta(batch, QUERIES, product.depth, dtype=dtype),
        linear,
        meta(batch, QUERIES, columns, dtype=dtype),
        statistics=statistics(product.depth) if reads else None,
        activation=product.activation,
        residual=residual,
        residual_norm=residual_norm,
        out_statistics=None if reads else statistics(columns).values,
        tiles=triton_linear.choose_tiles(rows, columns, capability),
        capability=capability,
    )


def linear_sites() -> Iterator[Site]:
    """Return every place."""
    for product in _PRODUCTS:
        launch = functools.partial(_linear, product)
        yield Site("fused_linear", product.variant, triton_linear.linear_kernel, launch)
