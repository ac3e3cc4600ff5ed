"""The full-size model's sizes, and what describes one launch of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pargo_kernels.aot_targets import Chip
from pargo_kernels.triton_common import KernelCall

__all__ = [
    "EPS",
    "HEADS",
    "HIDDEN",
    "IMAGE_TOKENS",
    "LLM_WIDTH",
    "PADDED_HIDDEN",
    "QUERIES",
    "QUERY_FFN",
    "QUERY_LAYERS",
    "QUERY_WIDTH",
    "TOKENS",
    "WIDTH",
    "Site",
    "meta",
]

# Tower.
TOKENS, WIDTH, HEADS, HIDDEN, PADDED_HIDDEN = 577, 1024, 16, 2730, 2752
# Projector: 288 partial and 16 global tokens.
QUERIES, QUERY_WIDTH, QUERY_LAYERS, QUERY_FFN, IMAGE_TOKENS, LLM_WIDTH = 288 + 16, 512, 4, 2048, 576, 4096
EPS = 1e-6


@dataclass(frozen=True)
class Site:
    """One place of the model where a kernel is launched.

    Attributes:
        operation: Public name of the operation.
        variant: What tells launches of the operation apart.
        kernel: The Triton kernel.
        launch: The launch for a number of images, a float dtype and a chip.
        lowest_arch: Oldest architecture that can run it.
    """

    operation: str
    variant: str
    kernel: Any
    launch: Callable[[int, torch.dtype, Chip], KernelCall]
    lowest_arch: int = 80


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of PyTorch's "meta" device: shape and strides without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")
