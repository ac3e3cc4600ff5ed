"""Weights by path: which are 8-bit, and what they are when they are multiplied out."""

from __future__ import annotations

import pytest
import torch

from pargo_export.runtime.cuda.weights import QuantizedWeight, Weights

SCALES = torch.tensor([0.5, 2.0, 0.25])


def quantized(dtype):
    """Return a small 8-bit weight, every value of which half precision holds."""
    values = torch.arange(-6, 6).reshape(3, 4).to(dtype)
    return QuantizedWeight(values, SCALES, torch.tensor(0.1))


def weights_of(dtype):
    """Return weights with one 8-bit linear in the tower, one in the projector, and float tensors."""
    tensors = {"tower.fc.bias": torch.ones(3), "projector.fc.bias": torch.zeros(3)}
    return Weights(tensors, {"tower.fc": quantized(dtype), "projector.fc": quantized(dtype)})


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("float_dtype", [torch.float16, torch.float32])
def test_widened_weights_are_values_times_scales(dtype, float_dtype):
    """One number an output channel; what is not under the prefix stays as it is, and so do the weights asked."""
    weights = weights_of(dtype)
    wide = weights.widened("projector.", float_dtype)
    found = wide.require("projector.fc.weight")
    assert found.dtype == float_dtype
    assert torch.equal(found.float(), torch.arange(-6.0, 6.0).reshape(3, 4) * SCALES[:, None])
    assert wide.quantized("projector.fc") is None
    assert "tower.fc.weight" not in wide
    assert wide.quantized("tower.fc").values is weights.quantized("tower.fc").values
    assert torch.equal(wide.require("projector.fc.bias"), torch.zeros(3))
    assert "projector.fc.weight" not in weights
    assert weights.quantized("projector.fc") is not None


def test_8_bit_linears_are_found_by_prefix():
    """A prefix is a module path with its dot; float linears do not count."""
    weights = weights_of(torch.int8)
    assert weights.has_quantized("projector.")
    assert not weights.has_quantized("projector.fc.bias")
    wide = weights.widened("projector.", torch.float16)
    assert not wide.has_quantized("projector.")
    assert wide.has_quantized("tower.")
