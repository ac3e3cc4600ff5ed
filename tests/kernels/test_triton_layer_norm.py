"""The residual LayerNorm kernel agrees with the reference on everything that tower and projector ask of it."""

from __future__ import annotations

import pytest
import torch
from fusion_cases import (
    DEVICE,
    HALF_AND_FLOAT,
    QUANTIZED,
    assert_quantized,
    assert_same,
    poison_empty,
    quantize_to,
    random,
)
from tolerances import TOLERANCES

from pargo_kernels import reference_fusions

pytest.importorskip("triton")

from pargo_kernels import triton_layer_norm
from pargo_kernels.triton_common import Launch

BATCH, TOKENS, CHANNELS = 2, 5, 37


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    poison_empty(monkeypatch)


def tower_block(dtype):
    """Sum of the residual stream and a product with a pending bias."""
    shape = (BATCH, TOKENS, CHANNELS)
    return (random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)), {
        "x_bias": random(CHANNELS, dtype=dtype, seed=2)
    }


def class_token(dtype):
    """Patches without the class token's row; positions of batch 1 hold that row."""
    x = random(BATCH, TOKENS - 1, CHANNELS, dtype=dtype)
    return (x, random(1, TOKENS, CHANNELS, dtype=dtype, seed=1)), {
        "lead": 1,
        "x_bias": random(CHANNELS, dtype=dtype, seed=2),
    }


def no_residual(dtype):
    """The norm of a tensor, no sum wanted; a view without the first row."""
    x = random(BATCH, TOKENS + 1, CHANNELS, dtype=dtype)[:, 1:]
    return (x, None), {"keep_sum": False}


def strided_rows(dtype):
    """Rows of wider tensors, at unlike strides; the residual without its first row."""
    x = random(BATCH, TOKENS, 2 * CHANNELS, dtype=dtype)[..., CHANNELS:]
    residual = random(BATCH, TOKENS + 1, 3 * CHANNELS, dtype=dtype, seed=1)[:, 1:, :CHANNELS]
    return (x, residual), {"x_bias": random(CHANNELS, dtype=torch.float32, seed=2)}


def shared_residual(dtype):
    """One residual for all images, no pending bias, no sum wanted."""
    x = random(BATCH, TOKENS, CHANNELS, dtype=dtype)
    return (x, random(1, TOKENS, CHANNELS, dtype=dtype, seed=1)), {"keep_sum": False}


def integer_product(dtype):
    """The raw product of an INT8 GEMM with the scales of its channels and a bias."""
    x = random(BATCH, TOKENS, CHANNELS, dtype=torch.int32)
    return (x, random(BATCH, TOKENS, CHANNELS, dtype=dtype, seed=1)), {
        "x_scale": random(CHANNELS, seed=3).abs() / 3000,
        "x_bias": random(CHANNELS, dtype=dtype, seed=2),
        "dtype": dtype,
    }


def scaled_product(dtype):
    """The product of an FP8 GEMM with a factor but no bias; results in float16."""
    x = random(BATCH, TOKENS, CHANNELS, dtype=dtype)
    return (x, None), {"x_scale": random(CHANNELS, seed=3), "dtype": torch.float16}


CASES = (
    tower_block,
    class_token,
    no_residual,
    strided_rows,
    shared_residual,
    integer_product,
    scaled_product,
)


def both(tensors, affine, options):
    """Return sum and normalised rows by the kernel and by the reference."""
    weight, bias = (random(CHANNELS, seed=4), random(CHANNELS, seed=5)) if affine else (None, None)
    found = triton_layer_norm.residual_layer_norm(*tensors, weight, bias, eps=1e-6, **options)
    options = {name: value for name, value in options.items() if name != "launch"}
    return found, reference_fusions.residual_layer_norm(*tensors, weight, bias, eps=1e-6, **options)


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize("case", CASES)
def test_kernel_is_the_reference(case, dtype, affine):
    """Sum and normalised rows agree for every combination of inputs and every dtype."""
    tensors, options = case(dtype)
    (total, normalised), (expected_total, expected) = both(tensors, affine, options)
    assert_same(normalised, expected)
    assert (total is None) == (expected_total is None)
    if total is not None:
        assert_same(total, expected_total)


@pytest.mark.parametrize("quantized", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("case", [tower_block, class_token, no_residual, integer_product])
def test_quantized_rows(case, dtype, quantized):
    """8-bit results are those of the reference, and the sum stays float."""
    tensors, options = case(dtype)
    (total, normalised), (expected_total, expected) = both(
        tensors, True, {**options, "quantize": quantize_to(quantized)}
    )
    assert_quantized(normalised, expected)
    if total is not None:
        assert_same(total, expected_total)


@pytest.mark.parametrize("launch", [Launch(1, 1), Launch(2, 2), Launch(4, 4), Launch(16, 1)])
@pytest.mark.parametrize("case", [class_token, strided_rows])
def test_every_launch_gives_the_same(case, launch):
    """Rows per program need not divide the rows."""
    tensors, options = case(torch.float16)
    found, expected = both(tensors, True, {**options, "launch": launch})
    assert_same(found[0], expected[0])
    assert_same(found[1], expected[1])


def test_a_thread_takes_eight_channels():
    """One 16-byte load of a 16-bit row."""
    assert triton_layer_norm.choose_launch(1024) == Launch(1, 4)
    assert triton_layer_norm.choose_launch(512) == Launch(1, 2)
    assert triton_layer_norm.choose_launch(16) == Launch(1, 1)


@pytest.mark.parametrize("channels", [1, 2, 64, 130])
def test_any_number_of_channels(channels):
    """Channels need not be a power of two; one channel has no variance."""
    x = random(1, 3, channels)
    found = triton_layer_norm.residual_layer_norm(x, None, None, None, eps=1e-6)[1]
    assert_same(found, reference_fusions.residual_layer_norm(x, None, None, None, eps=1e-6)[1])


def test_equal_channels_become_the_offset():
    """Without variance the normalised row is 0, but for the rounding of the mean, and the offset remains."""
    x = torch.full((1, 2, CHANNELS), 3.0, device=DEVICE, dtype=torch.float16)
    bias = random(CHANNELS, dtype=torch.float16)
    _, found = triton_layer_norm.residual_layer_norm(x, None, torch.ones_like(bias), bias, eps=1e-6)
    # A GPU divides to 2 units in the last place, and 1 / sqrt(eps) makes a thousand times as much of it.
    assert (found - bias).abs().max().item() <= TOLERANCES["fusion-large-mean"].value + 2**-11


def test_a_large_mean_does_not_cost_the_variance():
    """Rows around 100 with deviations of 0.1 agree with float64: the variance is that of centred values."""
    x = random(2, 3, 128, mean=100.0, scale=0.1)
    _, found = triton_layer_norm.residual_layer_norm(x, None, None, None, eps=1e-6)
    wide = x.double()
    expected = (wide - wide.mean(-1, keepdim=True)) / (
        wide.var(-1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    assert (found.double() - expected).abs().max().item() <= TOLERANCES["fusion-large-mean"].value


def test_refusals_say_why():
    """What the kernel cannot take is named."""
    x = random(1, 2, 8)
    with pytest.raises(ValueError, match="float64, the kernels compute in float32"):
        triton_layer_norm.residual_layer_norm(x.double(), None, None, None, eps=1.0)
    with pytest.raises(ValueError, match="residual has stride 2 along its last axis"):
        triton_layer_norm.residual_layer_norm(x, random(1, 2, 16)[..., ::2], None, None, eps=1.0)
    with pytest.raises(ValueError, match="20000 channels"):
        triton_layer_norm.residual_layer_norm(random(1, 1, 20000), None, None, None, eps=1.0)
    with pytest.raises(ValueError, match="num_warps of Launch is 3"):
        Launch(1, 3)
