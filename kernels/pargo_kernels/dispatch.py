"""The operations, each by Triton kernel where there is one for the input and in plain PyTorch elsewhere.

Every function takes what its reference takes and `implementation`:

    auto       the Triton kernel for CUDA tensors that it supports, else the reference
    reference  plain PyTorch, any device: `pargo_kernels.reference`, `reference_fusions`, `reference_linear`
    triton     the Triton kernel, or `UnsupportedError` with the reason (`pargo_kernels.support`)

The kernels are for inference: an input that wants a gradient goes to the reference. Shapes and dtypes are
documented once, at the reference of the same name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pargo_kernels import reference
from pargo_kernels.fusion_arguments import Quantize
from pargo_kernels.partial_global_plan import SplitWorkspace
from pargo_kernels.reference_linear import Activation, FoldedLinear, NormalisedResidual, RowStatistics
from pargo_kernels.support import (
    Implementation,
    UnsupportedError,
    choose,
    explain_unsupported,
    record_fallbacks,
)

__all__ = [
    "Implementation",
    "Quantize",
    "UnsupportedError",
    "bias_gelu",
    "block_diagonal_attention",
    "explain_unsupported",
    "fused_linear",
    "partial_global_attention",
    "patchify",
    "record_fallbacks",
    "residual_layer_norm",
    "rotate_heads",
    "scale_bias",
    "swiglu_layer_norm",
]


def _run(operation: str, implementation: Implementation, *tensors: Any, **arguments: Any) -> Any:
    return choose(operation, implementation, tensors, arguments)(*tensors, **arguments)


def partial_global_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    workspace: SplitWorkspace | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Cross-attention by windows and global queries: `reference.partial_global_attention`.

    With a `workspace`, programs of the kernel may share the keys of a global query and meet there; without one, a
    single program takes them all. The reference needs none.
    """
    sizes = {"num_heads": num_heads, "num_partial": num_partial, "num_global": num_global, "scale": scale}
    tensors = (query, key, value)
    function = choose("partial_global_attention", implementation, tensors, sizes)
    if workspace is not None and function is not reference.partial_global_attention:
        return function(*tensors, **sizes, workspace=workspace)
    return function(*tensors, **sizes)


def block_diagonal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    partial_window: int = 0,
    implementation: Implementation = "auto",
) -> Tensor:
    """Self-attention of two blocks of tokens: `reference.block_diagonal_attention`."""
    return _run(
        "block_diagonal_attention",
        implementation,
        query,
        key,
        value,
        num_heads=num_heads,
        num_partial=num_partial,
        num_global=num_global,
        scale=scale,
        partial_window=partial_window,
    )


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
    implementation: Implementation = "auto",
) -> tuple[Tensor | None, Tensor]:
    """Pending bias, residual sum and LayerNorm in one: `reference_fusions.residual_layer_norm`."""
    return _run(
        "residual_layer_norm",
        implementation,
        x,
        residual,
        weight,
        bias,
        eps=eps,
        x_scale=x_scale,
        x_bias=x_bias,
        lead=lead,
        quantize=quantize,
        keep_sum=keep_sum,
        dtype=dtype,
    )


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
    implementation: Implementation = "auto",
) -> Tensor:
    """SwiGLU and the LayerNorm after it: `reference_fusions.swiglu_layer_norm`."""
    return _run(
        "swiglu_layer_norm",
        implementation,
        gate_up,
        weight,
        bias,
        width=width,
        eps=eps,
        x_scale=x_scale,
        x_bias=x_bias,
        quantize=quantize,
        dtype=dtype,
    )


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
    implementation: Implementation = "auto",
) -> Tensor:
    """Rotary positions on the merged projection: `reference_fusions.rotate_heads`."""
    return _run(
        "rotate_heads",
        implementation,
        qkv,
        cos,
        signed_sin,
        num_heads=num_heads,
        x_scale=x_scale,
        x_bias=x_bias,
        in_place=in_place,
        dtype=dtype,
    )


def bias_gelu(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Pending bias and exact GELU: `reference_fusions.bias_gelu`."""
    return _run(
        "bias_gelu", implementation, x, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype
    )


def scale_bias(
    x: Tensor,
    *,
    x_scale: Tensor | None = None,
    x_bias: Tensor | None = None,
    quantize: Quantize | None = None,
    dtype: torch.dtype | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Pending factor and bias, a change of dtype: `reference_fusions.scale_bias`."""
    return _run(
        "scale_bias", implementation, x, x_scale=x_scale, x_bias=x_bias, quantize=quantize, dtype=dtype
    )


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
    implementation: Implementation = "auto",
) -> tuple[Tensor, RowStatistics | None]:
    """A linear that normalises its input and its residual: `reference_linear.fused_linear`."""
    return _run(
        "fused_linear",
        implementation,
        x,
        linear,
        statistics=statistics,
        activation=activation,
        residual=residual,
        residual_norm=residual_norm,
        keep_statistics=keep_statistics,
        dtype=dtype,
    )


def patchify(
    pixels: Tensor,
    *,
    image_size: int,
    patch_size: int,
    padded_width: int,
    dtype: torch.dtype,
    pixel_scale: Tensor | None = None,
    pixel_shift: Tensor | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Pixels to rows of patches for the patch projection: `reference_fusions.patchify`."""
    return _run(
        "patchify",
        implementation,
        pixels,
        image_size=image_size,
        patch_size=patch_size,
        padded_width=padded_width,
        dtype=dtype,
        pixel_scale=pixel_scale,
        pixel_shift=pixel_shift,
    )
