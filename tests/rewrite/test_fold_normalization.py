"""Folding image normalisation into the patch convolution."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, golden_model
from rewrite.exactness import assert_same_function, deploy, exact_case
from tolerances import TOLERANCES
from torch import nn

from pargo_export.preprocessing import PreprocessSpec
from pargo_export.rewrite.fold_normalization import PixelPatchEmbedding, fold_normalization

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def random_pixels(*shape):
    """Return uint8 pixels, with every extreme among them."""
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    pixels.flatten()[:2] = torch.tensor([0, 255], dtype=torch.uint8)
    return pixels


def normalised(pixels, mean, std, dtype=torch.float64):
    """Normalise as CLIP does."""
    mean, std = (torch.tensor(each, dtype=dtype)[:, None, None] for each in (mean, std))
    return (pixels.to(dtype) / 255 - mean) / std


@pytest.mark.parametrize("name", CASES)
def test_uint8_path_equals_the_normalised_float_path(name):
    """Raw pixels into the rewritten model give what normalised pixels give the reference."""
    model = exact_case(name).model
    pixels = random_pixels(2, 3, *model.config.input_size)
    deployed = deploy(model, fold_normalization(MEAN, STD))
    found = deployed.encode_images(pixels, return_intermediates=True)
    expected = model.encode_images(normalised(pixels, MEAN, STD), return_intermediates=True)
    assert_same_function(found, expected)
    error = (found.image_features - expected.image_features).abs().max().item()
    assert error <= TOLERANCES["rewrite-float64"].value


def test_it_applies_once_and_leaves_the_reference_alone():
    """A second time finds no convolution that takes normalised pixels."""
    model = exact_case("pargo_w2").model
    rewrite = fold_normalization(MEAN, STD)
    before = model.tower.patch_embedding.weight.clone()
    deployed = deploy(model, rewrite)
    assert isinstance(deployed.tower.patch_embedding, PixelPatchEmbedding)
    assert rewrite.apply(deployed) == 0
    assert isinstance(model.tower.patch_embedding, nn.Conv2d)
    assert torch.equal(model.tower.patch_embedding.weight, before)


def test_channels_have_their_own_mean_and_deviation():
    """Swapping the statistics of two channels changes the result."""
    model = exact_case("mlp").model
    pixels = random_pixels(1, 3, *model.config.input_size)
    right = deploy(model, fold_normalization((0.1, 0.5, 0.9), (0.1, 0.3, 0.6)))(pixels)
    wrong = deploy(model, fold_normalization((0.9, 0.5, 0.1), (0.6, 0.3, 0.1)))(pixels)
    assert (right - wrong).abs().max().item() > 0.1


@pytest.mark.parametrize("bias", [True, False], ids=["with_bias", "without_bias"])
def test_stride_and_missing_bias_are_kept(bias):
    """The convolution keeps its stride, and a bias appears where the shift needs one."""
    convolution = nn.Conv2d(3, 5, kernel_size=4, stride=4, bias=bias, dtype=torch.float64)
    pixels = random_pixels(2, 3, 12, 16)
    found = PixelPatchEmbedding(convolution, MEAN, STD)(pixels)
    expected = convolution(normalised(pixels, MEAN, STD))
    assert found.shape == expected.shape == (2, 5, 3, 4)
    assert (found - expected).abs().max().item() <= TOLERANCES["rewrite-float64"].value


def test_preprocessing_statistics_in_float32():
    """With the CLIP statistics a float32 model stays within float32 noise."""
    model = golden_model("pargo_w2")
    spec = PreprocessSpec.parse({"mode": "pad", "height": 84, "width": 84}, source="test")
    pixels = random_pixels(2, 3, 84, 84)
    deployed = deploy(model, fold_normalization(spec.mean, spec.std))
    assert deployed.tower.patch_embedding.weight.dtype == torch.float32
    expected = model(normalised(pixels, spec.mean, spec.std, torch.float32))
    assert (deployed(pixels) - expected).abs().max().item() <= TOLERANCES["runtime-uint8-graph"].value
