"""Where the full-size model launches `fused_linear`: the projector at small batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pargo_kernels import triton_linear
from pargo_kernels.aot_compile import Call
from pargo_kernels.aot_model import EPS, QUERIES, QUERY_FFN, QUERY_WIDTH, Site, meta
from pargo_kernels.aot_targets import Chip
from pargo_kernels.reference_linear import Activation, FoldedLinear, NormalisedResidual, RowStatistics

__all__ = ["linear_sites"]


@dataclass(frozen=True)
class _Product:
    """A linear of the projector that the fused program runs by its own kernel.

    Attributes:
        variant: Name in `Site.variant`.
        depth: Channels of x.
        columns: Channels of the result.
        activation: After the bias.
        writes: Whether it adds to the hidden state; else it reads it, through a norm.
    """

    variant: str
    depth: int
    columns: int
    activation: Activation = "none"
    writes: bool = False


_PRODUCTS = (
    _Product("read", QUERY_WIDTH, 3 * QUERY_WIDTH),
    _Product("read gelu", QUERY_WIDTH, QUERY_FFN, "gelu"),
    _Product("write", QUERY_FFN, QUERY_WIDTH, writes=True),
)


def _linear(product: _Product, batch: int, dtype: torch.dtype, chip: Chip) -> Call:
    rows, columns, capability = batch * QUERIES, product.columns, divmod(chip.arch, 10)

    def statistics(width: int) -> RowStatistics:
        """Of a hidden state that a writing product made."""
        tiles = triton_linear.choose_tiles(rows, width, capability)
        return RowStatistics(meta(2, -(-width // tiles.columns), rows), tiles.columns, width)

    linear = FoldedLinear(
        meta(columns, product.depth, dtype=dtype),
        meta(columns),
        None if product.writes else meta(columns),
        0.0 if product.writes else EPS,
    )
    residual = residual_norm = None
    if product.writes:
        residual = meta(batch, QUERIES, columns, dtype=dtype)
        residual_norm = NormalisedResidual(statistics(columns), meta(columns), meta(columns), EPS)
    return triton_linear.launch_fused_linear(
        meta(batch, QUERIES, product.depth, dtype=dtype),
        linear,
        meta(batch, QUERIES, columns, dtype=dtype),
        statistics=None if product.writes else statistics(product.depth),
        activation=product.activation,
        residual=residual,
        residual_norm=residual_norm,
        out_statistics=statistics(columns).values if product.writes else None,
        tiles=triton_linear.choose_tiles(rows, columns, capability),
        capability=capability,
    )


def linear_sites() -> Iterator[Site]:
    """Return every place."""
    for product in _PRODUCTS:
        launch = functools.partial(_linear, product)
        yield Site("fused_linear", product.variant, triton_linear.linear_kernel, launch)
