"""The operations of a ParGo and its tower as fused kernels, each beside its definition in plain PyTorch.

`pargo_kernels.dispatch` chooses between the two. This package knows nothing of `pargo_export`: tensors and
integers in, tensors out. Importing it imports PyTorch but not Triton.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# One place for all kernels, before anything imports Triton: a*b + c may become one instruction with one
# rounding. That is Triton's default up to 3.9 and not from 3.10 on; the results and the resource table of
# docs/kernels.md hold for this setting.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

if TYPE_CHECKING:
    from pargo_kernels.dispatch import (
        Quantize,
        UnsupportedError,
        bias_gelu,
        block_diagonal_attention,
        explain_unsupported,
        fused_linear,
        partial_global_attention,
        patchify,
        record_fallbacks,
        residual_layer_norm,
        rotate_heads,
        scale_bias,
        swiglu_layer_norm,
    )

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pargo_kernels import dispatch

    return getattr(dispatch, name)
