"""The SwiGLU kernel agrees with the reference and with the padded feed-forward of the rewrite."""

from __future__ import annotations

import math

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
from torch import nn
from torch.nn import functional

from pargo_export.rewrite.pad_swiglu import PaddedLayerNorm
from pargo_kernels import reference_fusions

pytest.importorskip("triton")

from pargo_kernels import triton_swiglu
from pargo_kernels.triton_common import Launch

BATCH, TOKENS = 2, 3
SHAPES = ((44, 41), (44, 44), (32, 30), (30, 30), (5, 2))  # channels F, width; three blocks, one block


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    poison_empty(monkeypatch)


def both(gate_up, width, **options):
    """Return the result by the kernel and by the reference."""
    channels = gate_up.shape[-1] // 2
    weight, bias = random(channels, seed=4), random(channels, seed=5)
    options["eps"] = 1e-6
    found = triton_swiglu.swiglu_layer_norm(gate_up, weight, bias, width=width, **options)
    options.pop("launch", None)
    return found, reference_fusions.swiglu_layer_norm(gate_up, weight, bias, width=width, **options)


def test_blocks_cover_a_row_with_few_idle_lanes():
    """Three blocks of 1024 take 2752 channels, one block takes a power of two."""
    assert triton_swiglu.choose_blocks(2752) == (1024, 3)
    assert triton_swiglu.choose_blocks(2048) == (2048, 1)
    for channels in range(1, 200):
        block, number = triton_swiglu.choose_blocks(channels)
        assert channels <= block * number < 2 * channels or channels == 1


@pytest.mark.parametrize("pending", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize(("channels", "width"), SHAPES)
def test_kernel_is_the_reference(channels, width, dtype, pending):
    """Rows agree for one block and for three, with and without padding."""
    x_bias = random(2 * channels, dtype=dtype, seed=1) if pending else None
    assert_same(*both(random(BATCH, TOKENS, 2 * channels, dtype=dtype), width, x_bias=x_bias))


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
def test_integer_products(dtype):
    """The raw product of an INT8 GEMM, with scales and bias."""
    gate_up = random(BATCH, TOKENS, 88, dtype=torch.int32)
    factor, bias = random(88, seed=1).abs() / 3000, random(88, dtype=dtype, seed=2)
    assert_same(*both(gate_up, 41, x_scale=factor, x_bias=bias, dtype=dtype))
    assert_same(*both(gate_up, 41, x_scale=factor, dtype=dtype))


@pytest.mark.parametrize("quantized", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32])
@pytest.mark.parametrize(("channels", "width"), [(44, 41), (32, 30)])
def test_quantized_rows(channels, width, dtype, quantized):
    """8-bit results are those of the reference, padded channels 0."""
    gate_up = random(BATCH, TOKENS, 2 * channels, dtype=dtype)
    options = {"x_bias": random(2 * channels, seed=1), "quantize": quantize_to(quantized)}
    if dtype == torch.int32:
        options |= {"x_scale": torch.full((2 * channels,), 1 / 3000, device=DEVICE), "dtype": torch.float16}
    found, expected = both(gate_up, width, **options)
    assert_quantized(found, expected)
    assert (found[..., width:].float() == 0).all()


@pytest.mark.parametrize("launch", [Launch(1, 1), Launch(2, 2), Launch(4, 4)])
def test_strided_rows_and_every_launch(launch):
    """Rows of a wider tensor without its first row; rows per program need not divide the rows."""
    gate_up = random(BATCH, TOKENS + 1, 100, dtype=torch.float16)[:, 1:, 8:96]
    assert_same(*both(gate_up, 41, launch=launch))


def test_a_thread_takes_eight_channels_of_each_block():
    """Six 16-byte loads of a 16-bit row of three blocks."""
    assert triton_swiglu.choose_launch(2752) == Launch(1, 4)
    assert triton_swiglu.choose_launch(88) == Launch(1, 1)


@pytest.mark.parametrize(("width", "padding"), [(41, 3), (29, 3)])
def test_kernel_is_the_padded_feed_forward_of_the_rewrite(width, padding):
    """The kernel stands for `PaddedLayerNorm(silu(gate) * up)` of the rewritten tower."""
    norm = nn.LayerNorm(width, eps=1e-5)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    padded = PaddedLayerNorm(norm, padding).to(DEVICE)
    gate, up = (functional.pad(random(BATCH, TOKENS, width, seed=seed), (0, padding)) for seed in (3, 4))
    found = triton_swiglu.swiglu_layer_norm(
        torch.cat([gate, up], dim=-1), padded.weight, padded.bias, width=width, eps=norm.eps
    )
    assert_same(found, padded(functional.silu(gate) * up))


def test_padded_channels_do_not_count():
    """Whatever they, their gain and their offset hold, padded channels become 0 and change no other."""
    gate_up, weight, bias = random(1, TOKENS, 88), random(44, seed=1), random(44, seed=2)
    other_gate_up, other_weight = gate_up.clone(), weight.clone()
    other_gate_up[..., 41:44] = math.inf
    other_gate_up[..., 85:] = 7.0
    other_weight[41:] = math.nan
    options = {"width": 41, "eps": 1e-6}
    first = triton_swiglu.swiglu_layer_norm(gate_up, weight, bias, **options)
    second = triton_swiglu.swiglu_layer_norm(other_gate_up, other_weight, bias, **options)
    assert torch.equal(first, second)
    assert (first[..., 41:] == 0).all()


def test_equal_channels_become_the_offset():
    """Without variance the normalised row is 0 and the offset is what remains."""
    gate_up = torch.ones(1, 2, 88, device=DEVICE)
    bias = random(44, seed=2)
    found = triton_swiglu.swiglu_layer_norm(gate_up, torch.ones_like(bias), bias, width=44, eps=1.0)
    assert_same(found, bias.expand_as(found))


def test_refusals_say_why():
    """What the kernel cannot take is named."""
    weight = random(4)
    with pytest.raises(ValueError, match="x has stride 2 along its last axis"):
        triton_swiglu.swiglu_layer_norm(random(1, 2, 16)[..., ::2], weight, weight, width=4, eps=1.0)
    wide = random(20000)
    with pytest.raises(ValueError, match="20000 hidden channels"):
        triton_swiglu.swiglu_layer_norm(random(1, 1, 40000), wide, wide, width=4, eps=1.0)
