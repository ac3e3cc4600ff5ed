"""The plain fusions compute what their formulas say, in float64 and by the roundings that they promise."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import TOLERANCES
from torch import nn
from torch.nn import functional

from pargo_export.config import VisionConfig
from pargo_export.model.frontend import split_tiles
from pargo_export.model.tower import RotaryEmbedding
from pargo_export.rewrite.half_rotation_rope import HalfRotationEmbedding
from pargo_export.rewrite.pad_swiglu import PaddedLayerNorm
from pargo_kernels.reference_fusions import (
    Quantize,
    bias_gelu,
    patchify,
    residual_layer_norm,
    rotate_heads,
    scale_bias,
    swiglu_layer_norm,
)

BATCH, TOKENS, CHANNELS = 2, 5, 13


def random(*shape, seed=0, dtype=torch.float64):
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_exact(found, expected):
    """Compare in float64."""
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= TOLERANCES["rewrite-float64"].value, f"{error:.2e}"


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("residual_batch", [BATCH, 1, None])
def test_layer_norm_of_the_sum(residual_batch, affine):
    """The sum holds the pending product and the residual, and its LayerNorm is PyTorch's."""
    x, factor, offset = random(BATCH, TOKENS, CHANNELS), random(CHANNELS, seed=1), random(CHANNELS, seed=2)
    residual = None if residual_batch is None else random(residual_batch, TOKENS, CHANNELS, seed=3)
    weight, bias = (random(CHANNELS, seed=4), random(CHANNELS, seed=5)) if affine else (None, None)
    total, normalised = residual_layer_norm(
        x, residual, weight, bias, eps=1e-6, x_scale=factor, x_bias=offset
    )
    expected = x * factor + offset + (0 if residual is None else residual)
    assert_exact(total, expected)
    assert_exact(normalised, functional.layer_norm(expected, [CHANNELS], weight, bias, 1e-6))


def test_leading_rows_are_the_residual_alone():
    """The class token's row gets neither product nor pending bias."""
    x, residual = random(BATCH, TOKENS - 1, CHANNELS), random(1, TOKENS, CHANNELS, seed=1)
    total, normalised = residual_layer_norm(
        x, residual, None, None, eps=1e-6, lead=1, x_bias=torch.ones(CHANNELS, dtype=torch.float64)
    )
    expected = residual + functional.pad(x + 1, (0, 0, 1, 0))
    assert_exact(total, expected)
    assert_exact(normalised, functional.layer_norm(expected, [CHANNELS], eps=1e-6))


def test_statistics_come_from_the_rounded_sum():
    """The sum is rounded once, and LayerNorm sees the rounded rows, in float32."""
    x, residual = (random(BATCH, TOKENS, CHANNELS, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    total, normalised = residual_layer_norm(x, residual, None, None, eps=1e-6)
    assert torch.equal(total, (x.double() + residual.double()).to(torch.bfloat16))
    expected = functional.layer_norm(total.float(), [CHANNELS], eps=1e-6).to(torch.bfloat16)
    assert torch.equal(normalised, expected)


def test_the_sum_may_be_left_out():
    """Without `keep_sum` the first result is None and the second the same."""
    x = random(BATCH, TOKENS, CHANNELS)
    none, alone = residual_layer_norm(x, x, None, None, eps=1e-6, keep_sum=False)
    _, together = residual_layer_norm(x, x, None, None, eps=1e-6)
    assert none is None
    assert torch.equal(alone, together)


def test_swiglu_is_the_towers_padded_feed_forward():
    """SiLU, product and LayerNorm over the true width, as the padded module of the rewrite computes them."""
    width, padding = 11, 5
    norm = nn.LayerNorm(width, eps=1e-5, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    padded = PaddedLayerNorm(norm, padding)
    pad = (0, padding)
    gate, up = (functional.pad(random(BATCH, TOKENS, width, seed=seed), pad) for seed in (0, 1))
    found = swiglu_layer_norm(
        torch.cat([gate, up], dim=-1), padded.weight, padded.bias, width=width, eps=norm.eps
    )
    assert_exact(found, padded(functional.silu(gate) * up))


def test_padded_hidden_channels_do_not_count():
    """Whatever the padded channels hold, the statistics leave them out and the result is 0 there."""
    gate_up, weight, bias = random(BATCH, TOKENS, 16), random(8, seed=1), random(8, seed=2)
    other = gate_up.clone()
    other[..., 5:8] = math.nan
    other[..., 13:16] = math.inf
    first, second = (swiglu_layer_norm(x, weight, bias, width=5, eps=1e-6) for x in (gate_up, other))
    assert torch.equal(first, second)
    assert (first[..., 5:] == 0).all()
    assert (first[..., :5] != 0).all()


def rotary_module():
    """Return a small tower's half rotation: N tokens and a class token, dimension of a head 8."""
    config = VisionConfig(image_size=6, patch_size=3, width=16, num_layers=1, head_width=8, hidden_width=24)
    return HalfRotationEmbedding(RotaryEmbedding(config)).double()


def test_rotation_is_that_of_the_rewrite():
    """Query and key turn as `HalfRotationEmbedding` turns them, the value does not."""
    module, heads = rotary_module(), 2
    tokens, dim = module.cos.shape
    qkv = random(BATCH, tokens, 3 * heads * dim)
    parts = qkv.unflatten(-1, (3, heads, dim)).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    expected = torch.stack([module(parts[0]), module(parts[1]), parts[2]])
    found = rotate_heads(qkv, module.cos, module.signed_sin, num_heads=heads)
    assert_exact(found, expected.permute(1, 3, 0, 2, 4).flatten(2))


def test_pending_bias_comes_before_the_rotation():
    """Factor and bias apply to query, key and value alike, then the heads turn."""
    module = rotary_module()
    qkv, factor, offset = random(BATCH, len(module.cos), 48), random(48, seed=1), random(48, seed=2)
    found = rotate_heads(qkv, module.cos, module.signed_sin, num_heads=2, x_scale=factor, x_bias=offset)
    expected = rotate_heads(qkv * factor + offset, module.cos, module.signed_sin, num_heads=2)
    assert_exact(found, expected)


def test_rotation_in_place_writes_into_a_view():
    """In place, the given tensor holds the result and its value channels stay as they are."""
    module = rotary_module()
    wide = random(BATCH, len(module.cos), 60)
    qkv = wide[..., :48]
    before = wide.clone()
    expected = rotate_heads(qkv.clone(), module.cos, module.signed_sin, num_heads=2)
    found = rotate_heads(qkv, module.cos, module.signed_sin, num_heads=2, in_place=True)
    assert found is qkv
    assert_exact(found, expected)
    assert torch.equal(wide[..., 32:], before[..., 32:])


def test_gelu_is_exact():
    """GELU by the error function, after factor and bias."""
    x, factor, offset = random(3, CHANNELS), random(CHANNELS, seed=1), random(CHANNELS, seed=2)
    value = x * factor + offset
    expected = value * 0.5 * (1 + torch.erf(value / math.sqrt(2)))
    assert_exact(bias_gelu(x, x_scale=factor, x_bias=offset), expected)


def test_integer_products_are_scaled():
    """A raw INT8 product becomes float by its scales and bias."""
    x = torch.tensor([[100, -7, 3]], dtype=torch.int32)
    found = scale_bias(
        x, x_scale=torch.tensor([0.5, 2.0, 0.25]), x_bias=torch.tensor([1.0, 0.0, -1.0]), dtype=torch.float16
    )
    assert found.dtype == torch.float16
    assert found.tolist() == [[51.0, -14.0, -0.25]]


def test_int8_rounds_halves_to_even_and_saturates():
    """Ties go to the even integer, what is out of range to its end."""
    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75, 63.5, 63.75, 64.0, 1e6, -64.0, -64.5, -1e6])
    found = scale_bias(x, quantize=Quantize(torch.tensor(0.5), torch.int8))
    assert found.tolist() == [0, 2, 2, 0, -2, 127, 127, 127, 127, -128, -128, -128]


def test_float8_saturates():
    """Values beyond 448 become 448 instead of NaN; a NaN stays one."""
    x = torch.tensor([1.0, 447.0, 465.0, 1e9, -1e9, math.inf])
    quantize = Quantize(torch.tensor([1.0]), torch.float8_e4m3fn)
    assert scale_bias(x, quantize=quantize).float().tolist() == [1.0, 448.0, 448.0, 448.0, -448.0, 448.0]
    assert scale_bias(torch.tensor([math.nan]), quantize=quantize).float().isnan().all()


def test_values_are_rounded_to_the_float_type_before_they_are_quantized():
    """1 + 2^-9 rounds to 1 in bfloat16, which lies in another step than the unrounded value."""
    x = torch.tensor([1.0 + 2.0**-9])
    quantize = Quantize(torch.tensor(1 / 93.4), torch.int8)
    assert scale_bias(x, quantize=quantize, dtype=torch.bfloat16).tolist() == [93]
    assert scale_bias(x, quantize=quantize).tolist() == [94]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (2, 3)])
def test_patches_times_weight_are_the_convolution(rows, columns):
    """The product with the flattened kernel equals the patch convolution of every tile."""
    size, patch, padded = 12, 4, 64
    pixels = random(BATCH, 3, rows * size, columns * size)
    weight = random(7, 3, patch, patch, seed=1)
    patches = patchify(pixels, image_size=size, patch_size=patch, padded_width=padded, dtype=torch.float64)
    assert (patches[..., 48:] == 0).all()
    expected = functional.conv2d(split_tiles(pixels, size), weight, stride=patch)
    assert_exact(patches[..., :48] @ weight.flatten(1).T, expected.flatten(2).transpose(1, 2))


def test_pixels_are_normalised_and_the_padding_is_not():
    """Factor and shift per channel apply to pixels; padded columns stay 0."""
    pixels = torch.arange(3 * 4, dtype=torch.uint8).reshape(1, 3, 2, 2)
    found = patchify(
        pixels,
        image_size=2,
        patch_size=2,
        padded_width=14,
        dtype=torch.float32,
        pixel_scale=torch.tensor([1.0, 0.5, 2.0]),
        pixel_shift=torch.tensor([1.0, 0.0, -1.0]),
    )
    assert found.tolist() == [[[1, 2, 3, 4, 2, 2.5, 3, 3.5, 15, 17, 19, 21, 0, 0]]]


X = torch.zeros(2, 5, 12)
ONE = torch.ones(12)
BAD_INPUTS = {
    "residual": (lambda: residual_layer_norm(X, X[:, :4], None, None, eps=1.0), "residual is .* expected"),
    "lead": (lambda: residual_layer_norm(X, None, None, None, eps=1.0, lead=1), "lead is 1"),
    "weight": (
        lambda: residual_layer_norm(X, X, ONE[:3], None, eps=1.0),
        r"weight is \[3\].*expected \[12\]",
    ),
    "x_scale": (lambda: scale_bias(X, x_scale=ONE[:2]), r"x_scale is \[2\]"),
    "integer": (lambda: scale_bias(X.int()), "pass dtype="),
    "bytes": (lambda: scale_bias(X.to(torch.uint8)), "x is torch.uint8"),
    "width": (
        lambda: swiglu_layer_norm(X, ONE[:6], ONE[:6], width=7, eps=1.0),
        "width is 7, expected 1 to 6",
    ),
    "odd": (lambda: swiglu_layer_norm(X[..., :5], ONE[:2], ONE[:2], width=2, eps=1.0), "gate and up"),
    "heads": (lambda: rotate_heads(X, X[0, :, :2], X[0, :, :2], num_heads=4), "4 heads of an even dimension"),
    "table": (lambda: rotate_heads(X, X[0, :, :4], X[0, :, :2], num_heads=2), r"cos is \[5, 4\].*\[5, 2\]"),
    "in place": (
        lambda: rotate_heads(X, X[0, :, :2], X[0, :, :2], num_heads=2, in_place=True, dtype=torch.float16),
        "pass in_place=False",
    ),
    "image": (
        lambda: patchify(X[None], image_size=4, patch_size=2, padded_width=8, dtype=torch.float32),
        "multiple of 4",
    ),
    "patch": (
        lambda: patchify(X[None, :, :4], image_size=4, patch_size=3, padded_width=99, dtype=torch.float32),
        "not a multiple of patch_size 3",
    ),
    "padding": (
        lambda: patchify(X[None, :, :4], image_size=4, patch_size=2, padded_width=7, dtype=torch.float32),
        "pad to 8 or more",
    ),
    "scale": (lambda: Quantize(ONE, torch.int8), "one float32 number"),
    "quantized dtype": (lambda: Quantize(ONE[:1], torch.int16), "expected one of"),
}


@pytest.mark.parametrize(("call", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_refused(call, message):
    """The error names the argument, what was found and what was expected."""
    with pytest.raises(ValueError, match=message):
        call()
