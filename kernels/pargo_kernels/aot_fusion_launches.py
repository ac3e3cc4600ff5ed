"""Where the full-size model launches the fusions between its products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from pargo_kernels import triton_elementwise, triton_layer_norm, triton_rotate, triton_swiglu
from pargo_kernels.aot_model import (
    EPS,
    HEADS,
    HIDDEN,
    PADDED_HIDDEN,
    QUERIES,
    QUERY_FFN,
    QUERY_WIDTH,
    TOKENS,
    WIDTH,
    Site,
    meta,
)
from pargo_kernels.aot_targets import Chip
from pargo_kernels.fusion_arguments import Quantize
from pargo_kernels.triton_common import KernelCall

__all__ = ["fusion_sites"]


@dataclass(frozen=True)
class _Precision:
    """How the products around a fusion are computed: what it reads and what it writes.

    Attributes:
        variant: Name in `Site.variant`, empty for plain float.
        quantized: Dtype of quantized activations.
        product: Dtype of raw products, `None` for the float dtype.
    """

    variant: str
    quantized: torch.dtype | None = None
    product: torch.dtype | None = None

    @property
    def lowest_arch(self) -> int:
        return 89 if self.quantized == torch.float8_e4m3fn else 80

    def raw(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A raw product."""
        return meta(*shape, dtype=self.product or dtype)

    def pending(self, channels: int, dtype: torch.dtype) -> _Pending:
        """Factor and bias that a product leaves to the next fusion."""
        # Raw FP8 products come scaled but for the ratio of the channels, which half precision holds.
        scale = meta(channels, dtype=torch.float32 if self.product else dtype) if self.quantized else None
        return {"x_scale": scale, "x_bias": meta(channels, dtype=dtype)}

    def written(self, *shape: int, dtype: torch.dtype) -> tuple[Tensor, Quantize | None]:
        """The result and how it is quantized."""
        if self.quantized is None:
            return meta(*shape, dtype=dtype), None
        return meta(*shape, dtype=self.quantized), Quantize(meta(1), self.quantized)


class _Pending(TypedDict):
    x_scale: Tensor | None
    x_bias: Tensor | None


_FLOAT = _Precision("")
_PRECISIONS = (_FLOAT, _Precision("int8", torch.int8, torch.int32), _Precision("fp8", torch.float8_e4m3fn))


@dataclass(frozen=True)
class _Stream:
    """Where a norm of the residual stream stands.

    Attributes:
        variant: Name in `Site.variant`.
        tokens: Rows of an image.
        width: Channels.
        residual: Whether a residual is added here; else the GEMM has added it.
        lead: Rows of the residual in front of the product's.
        bias: Whether a bias is pending.
        keep_sum: Whether the sum is wanted too.
    """

    variant: str
    tokens: int = TOKENS
    width: int = WIDTH
    residual: bool = True
    lead: int = 0
    bias: bool = True
    keep_sum: bool = False


_STREAMS = (
    _Stream("", keep_sum=True),
    _Stream("patches", lead=1, keep_sum=True),
    _Stream("after sum", residual=False),
    _Stream("plain", residual=False, bias=False),
    _Stream("projector", tokens=QUERIES, width=QUERY_WIDTH),
)


def _layer_norm(
    precision: _Precision, stream: _Stream, batch: int, dtype: torch.dtype, _: Chip
) -> KernelCall:
    tokens, width = stream.tokens, stream.width
    product = precision if stream.residual else _FLOAT  # a GEMM that adds leaves no int32
    x = product.raw(batch, tokens - stream.lead, width, dtype=dtype)
    residual_batch = 1 if stream.lead else batch  # positions and class token are the same for all images
    residual = meta(residual_batch, tokens, width, dtype=dtype) if stream.residual else None
    total = meta(batch, tokens, width, dtype=dtype) if stream.keep_sum else None
    out, quantize = precision.written(batch, tokens, width, dtype=dtype)
    return triton_layer_norm.launch_residual_layer_norm(
        *(x, residual, meta(width, dtype=dtype), meta(width, dtype=dtype), total, out),
        eps=EPS,
        x_scale=product.pending(width, dtype)["x_scale"],
        x_bias=meta(width) if stream.bias else None,
        lead=stream.lead,
        quantize=quantize,
        dtype=dtype,
    )


def _swiglu(precision: _Precision, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    gate_up = precision.raw(batch, TOKENS, 2 * PADDED_HIDDEN, dtype=dtype)
    weight, bias = meta(PADDED_HIDDEN, dtype=dtype), meta(PADDED_HIDDEN, dtype=dtype)
    out, quantize = precision.written(batch, TOKENS, PADDED_HIDDEN, dtype=dtype)
    return triton_swiglu.launch_swiglu_layer_norm(
        *(gate_up, weight, bias, out),
        width=HIDDEN,
        eps=EPS,
        **precision.pending(2 * PADDED_HIDDEN, dtype),
        quantize=quantize,
        dtype=dtype,
    )


def _rotate(precision: _Precision, in_place: bool, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    qkv = precision.raw(batch, TOKENS, 3 * WIDTH, dtype=dtype)
    table = meta(TOKENS, WIDTH // HEADS, dtype=dtype)
    out = qkv if in_place else meta(batch, TOKENS, 3 * WIDTH, dtype=dtype)
    pending = precision.pending(3 * WIDTH, dtype)
    return triton_rotate.launch_rotate_heads(qkv, table, table, out, num_heads=HEADS, **pending)


def _bias_gelu(precision: _Precision, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    x = precision.raw(batch, QUERIES, QUERY_FFN, dtype=dtype)
    out, quantize = precision.written(*x.shape, dtype=dtype)
    pending = precision.pending(QUERY_FFN, dtype)
    return triton_elementwise.launch_elementwise(x, out, gelu=True, **pending, quantize=quantize, dtype=dtype)


def _finish(precision: _Precision, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    """A product that no fusion follows: factor and bias, to float."""
    x = precision.raw(batch, QUERIES, 3 * QUERY_WIDTH, dtype=dtype)
    out = meta(*x.shape, dtype=dtype)
    pending = precision.pending(3 * QUERY_WIDTH, dtype)
    return triton_elementwise.launch_elementwise(x, out, gelu=False, **pending, dtype=dtype)


def _quantize(precision: _Precision, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    """A float activation that a quantized product reads."""
    x = meta(batch, QUERIES, QUERY_WIDTH, dtype=dtype)
    out, quantize = precision.written(*x.shape, dtype=dtype)
    return triton_elementwise.launch_elementwise(x, out, gelu=False, quantize=quantize, dtype=dtype)


def fusion_sites() -> Iterator[Site]:
    """Return every place; for each operation the plain float one first and the one with FP8 last."""
    for precision in _PRECISIONS:
        yield from _sites(precision)


def _sites(precision: _Precision) -> Iterator[Site]:
    def site(
        operation: str, variant: str, kernel: Any, launch: Callable[..., KernelCall], *first: Any
    ) -> Site:
        name = " ".join(part for part in (variant, precision.variant) if part)
        call = functools.partial(launch, precision, *first)
        return Site(operation, name, kernel, call, precision.lowest_arch)

    norm = triton_layer_norm.residual_layer_norm_kernel
    for stream in _STREAMS:
        yield site("residual_layer_norm", stream.variant, norm, _layer_norm, stream)
    yield site("swiglu_layer_norm", "", triton_swiglu.swiglu_layer_norm_kernel, _swiglu)
    for variant, in_place in (("", False), ("in place", True)):
        if not (in_place and precision.product):  # an integer product has no room for the float result
            yield site("rotate_heads", variant, triton_rotate.rotate_heads_kernel, _rotate, in_place)
    elementwise = triton_elementwise.elementwise_kernel
    yield site("bias_gelu", "", elementwise, _bias_gelu)
    if precision.quantized:
        yield site("scale_bias", "from", elementwise, _finish)
        yield site("scale_bias", "to", elementwise, _quantize)
