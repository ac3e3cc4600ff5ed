"""Pixels to patches to channels: the patch convolution as one matrix product."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from pargo_export.config import VisionConfig
from pargo_export.runtime.cuda.linear import Linear, load_linear
from pargo_export.runtime.cuda.options import ProgramSpec
from pargo_export.runtime.cuda.weights import QuantizedWeight, Weights
from pargo_kernels import patchify, scale_bias

__all__ = ["Patches", "load_patch_linear"]

_PATH = "tower.patch_embedding"
_ALIGNMENT = 16  # columns of the product's operands; 588 values of a 14-pixel patch become 592


class Patches:
    """Cut images into tiles and patches, one row a patch, ready for the patch linear.

    Args:
        config: The tower.
        spec: Whether pixels are to be normalised, and how.
        linear: The patch linear.
        device: Where the pixels are.
    """

    def __init__(self, config: VisionConfig, spec: ProgramSpec, linear: Linear, device: torch.device) -> None:
        self._config, self._dtype, self._quantize = config, spec.dtype, linear.quantize
        mean = torch.tensor(spec.preprocessing.mean, dtype=torch.float64)
        std = torch.tensor(spec.preprocessing.std, dtype=torch.float64)
        normalizes = spec.input == "float"
        self._scale = (1 / (255 * std)).to(device, torch.float32) if normalizes else None
        self._shift = (-mean / std).to(device, torch.float32) if normalizes else None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels `[B, 3, R*S, C*S]`, uint8 or normalised float -> `[B*R*C, N, padded width]`."""
        is_uint8 = pixels.dtype == torch.uint8
        patches = patchify(
            pixels,
            image_size=self._config.image_size,
            patch_size=self._config.patch_size,
            padded_width=_padded_width(self._config),
            dtype=self._dtype,
            pixel_scale=self._scale if is_uint8 else None,
            pixel_shift=self._shift if is_uint8 else None,
        )
        return patches if self._quantize is None else scale_bias(patches, quantize=self._quantize)


def load_patch_linear(weights: Weights, config: VisionConfig, dtype: torch.dtype) -> Linear:
    """Return the patch convolution as a linear over flattened, zero-padded patches.

    Raises:
        BackendError: There is no such weight.
    """
    quantized: dict[str, QuantizedWeight] = {}
    tensors: dict[str, Tensor] = {}
    if stored := weights.quantized(_PATH):
        quantized[_PATH] = dataclasses.replace(stored, values=_pad(stored.values, config))
    else:
        tensors[f"{_PATH}.weight"] = _pad(weights.require(f"{_PATH}.weight").flatten(1), config)
    bias = weights.get(f"{_PATH}.bias")
    if bias is not None:
        tensors[f"{_PATH}.bias"] = bias
    return load_linear(Weights(tensors, quantized, device=weights.device), _PATH, dtype)


def _pad(weight: Tensor, config: VisionConfig) -> Tensor:
    padding = _padded_width(config) - weight.shape[1]
    if weight.dtype == torch.float8_e4m3fn:  # zero is the same byte
        return functional.pad(weight.view(torch.uint8), (0, padding)).view(weight.dtype)
    return functional.pad(weight, (0, padding))


def _padded_width(config: VisionConfig) -> int:
    values: int = config.in_channels * config.patch_size**2
    return -(-values // _ALIGNMENT) * _ALIGNMENT
