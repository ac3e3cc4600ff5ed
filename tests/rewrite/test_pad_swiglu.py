"""Zero-padding the hidden width of the SwiGLU."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite.exactness import assert_same_function, check_rewrite, deploy, exact_case
from rewrite.random_models import random_config, random_images, random_model
from tolerances import TOLERANCES
from torch import nn
from torch.nn import functional

from pargo_export.rewrite.pad_swiglu import ALIGNMENT, PAD_SWIGLU, PaddedLayerNorm

COUNTS = {"pargo_w2": 3, "pargo_small_variance": 2}  # the others have an aligned width


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every block is changed whose hidden width is not a multiple of 64."""
    check_rewrite(PAD_SWIGLU, name, alone=COUNTS.get(name, 0))


@pytest.mark.parametrize("hidden_width", [1, 45, 63, 64, 65, 127, 128, 170, 191])
def test_any_width_is_padded_to_the_next_multiple(hidden_width):
    """The function stays the same for widths just below, at and above a multiple, and a width of 1."""
    config = random_config(vision={"hidden_width": hidden_width})
    model, images = random_model(config).double(), random_images(config).double()
    deployed = deploy(model, PAD_SWIGLU)
    found, expected = (each.encode_images(images, return_intermediates=True) for each in (deployed, model))
    assert_same_function(found, expected)
    for block in deployed.tower.blocks:
        mlp, width = block.mlp, -(-hidden_width // ALIGNMENT) * ALIGNMENT
        shapes = [mlp.gate_up.gate.weight.shape[0], mlp.gate_up.up.weight.shape[0], mlp.down.weight.shape[1]]
        sizes = [mlp.gate_up.gate.out_features, mlp.gate_up.up.out_features, mlp.down.in_features]
        assert shapes == sizes == [width] * 3
        assert width % 64 == 0
        assert isinstance(mlp.norm, PaddedLayerNorm) == (hidden_width % 64 != 0)


def test_padded_channels_are_exactly_zero():
    """Before the norm and after it, in every block, not just almost."""
    case = exact_case("pargo_w2")
    deployed = deploy(case.model, PAD_SWIGLU)
    seen = []
    for block in deployed.tower.blocks:
        block.mlp.norm.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output)))
    deployed(case.images)
    assert len(seen) == 3
    for before, after in seen:
        assert before.shape[-1] == after.shape[-1] == 192
        assert not before[..., 170:].any()
        assert not after[..., 170:].any()
        assert after[..., :170].any(dim=-1).all()


def padded_norm(width, padding, seed=0):
    """Return a LayerNorm with random gain and offset, and its padded form, in float64."""
    generator = torch.Generator().manual_seed(seed)
    norm = nn.LayerNorm(width, eps=1e-6, dtype=torch.float64).requires_grad_(requires_grad=False)
    norm.weight.copy_(torch.randn(width, dtype=torch.float64, generator=generator))
    norm.bias.copy_(torch.randn(width, dtype=torch.float64, generator=generator))
    return norm, PaddedLayerNorm(norm, padding)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    width=st.integers(8, 200),
    padding=st.integers(0, 127),
    mean=st.sampled_from([0.0, -3.0, 50.0]),
    std=st.sampled_from([0.1, 1.0, 20.0]),
)
def test_statistics_are_those_of_the_true_width(width, padding, mean, std):
    """A mean far from zero, which padding would dilute, is taken over the true channels alone."""
    norm, padded = padded_norm(width, padding)
    generator = torch.Generator().manual_seed(width * 128 + padding)
    tokens = mean + std * torch.randn(2, 3, width, dtype=torch.float64, generator=generator)
    found = padded(functional.pad(tokens, (0, padding)))
    error = (found[..., :width] - norm(tokens)).abs().max().item()
    assert error <= TOLERANCES["padded-norm-float64"].value
    assert not found[..., width:].any()


def test_statistics_over_the_padded_width_would_be_noticed():
    """The same comparison fails by far for a plain LayerNorm over the padded axis."""
    norm, _ = padded_norm(170, 22)
    generator = torch.Generator().manual_seed(1)
    tokens = 3 + torch.randn(4, 170, dtype=torch.float64, generator=generator)
    weight, bias = (functional.pad(each, (0, 22)) for each in (norm.weight, norm.bias))
    wrong = functional.layer_norm(functional.pad(tokens, (0, 22)), (192,), weight, bias, norm.eps)
    assert (wrong[..., :170] - norm(tokens)).abs().max().item() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_takes_statistics_in_float32(dtype):
    """Squares that overflow float16, and sums that float16 cannot resolve, are no problem."""
    norm, padded = padded_norm(170, 22)
    generator = torch.Generator().manual_seed(2)
    tokens = (300 + 400 * torch.randn(4, 170, dtype=torch.float64, generator=generator)).to(dtype)
    found = padded.to(dtype)(functional.pad(tokens, (0, 22)))
    assert found.dtype == dtype
    error = (found[..., :170].double() - norm(tokens.double())).abs().max().item()
    assert error <= TOLERANCES["padded-norm-half"].value


def test_float32_statistics_are_accurate():
    """At the width of EVA02-L, leaving the padding out costs no accuracy that matters."""
    norm, padded = padded_norm(2730, 22)
    generator = torch.Generator().manual_seed(3)
    tokens = (2 + torch.randn(4, 2730, dtype=torch.float64, generator=generator)).float()
    found = padded.float()(functional.pad(tokens, (0, 22)))
    error = (found[..., :2730].double() - norm(tokens.double())).abs().max().item()
    assert error <= TOLERANCES["padded-norm-float32"].value


@pytest.mark.parametrize("mean", [1.0, 20.0, 300.0])
def test_channels_that_are_all_alike_stay_finite(mean):
    """Rounding never makes the variance negative, where a plain LayerNorm gives numbers too."""
    norm, padded = padded_norm(170, 22)
    generator = torch.Generator().manual_seed(4)
    tokens = mean * (1 + torch.rand(200, 1, generator=generator)).expand(-1, 170)
    assert bool(norm.float()(tokens).isfinite().all())
    assert bool(padded.float()(functional.pad(tokens, (0, 22))).isfinite().all())
