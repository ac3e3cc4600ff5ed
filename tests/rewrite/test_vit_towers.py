"""Every rewrite on the towers of CLIP and SigLIP."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from rewrite.exactness import assert_same_function, deploy
from rewrite.random_models import random_images, random_model
from tolerances import TOLERANCES
from vit_cases import KINDS, vit_config

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.attention_forms import ATTENTION_FORMS
from pargo_export.rewrite.fold_normalization import fold_normalization
from pargo_export.rewrite.registry import REWRITES, select_rewrites

# Two blocks run of the CLIP (the penultimate layer), three of the SigLIP; three query layers, the first one precomputed.
COUNTS = {
    "clip": {
        "drop-unused-weights": 1,
        "fold-class-token": 1,
        "fold-softmax-scale": 8,
        "fold-output-norm": 6,
        "drop-key-bias": 6,
        "fold-value-bias": 6,
        "precompute-first-layer": 1,
        "merge-qkv": 4,
        "merge-cross-kv": 3,
        "drop-class-token": 1,
    },
    "siglip": {
        "drop-unused-weights": 1,
        "fold-softmax-scale": 9,
        "fold-output-norm": 6,
        "drop-key-bias": 6,
        "fold-value-bias": 6,
        "precompute-first-layer": 1,
        "merge-qkv": 5,
        "merge-cross-kv": 3,
    },
}


@lru_cache
def reference(kind: str) -> VisualFrontEnd:
    """Return a random reference in float64; rewrites leave it as it is."""
    return random_model(vit_config(kind)).double()


def images(kind: str) -> torch.Tensor:
    """Return two images in float64."""
    return random_images(vit_config(kind)).double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REWRITES)
def test_each_rewrite_is_exact(kind, name):
    """Alone it changes nothing that is computed; those for SwiGLU and rotary positions find nothing."""
    model, rewrite = reference(kind), REWRITES[name]
    expected = model.encode_images(images(kind), return_intermediates=True)
    deployed, (result,) = deploy_module(model, [rewrite], "dense", torch.float64)
    assert_same_function(deployed.encode_images(images(kind), return_intermediates=True), expected)
    if name in {"half-rotation-rope", "pad-swiglu", "merge-swiglu"} or name not in COUNTS[kind]:
        assert result.count == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ATTENTION_FORMS)
def test_all_of_a_target_are_exact(kind, form):
    """What an export for a GPU does, in every attention form."""
    model = reference(kind)
    deployed, results = deploy_module(model, select_rewrites("cuda"), form, torch.float64)
    assert {result.name: result.count for result in results if result.count} == COUNTS[kind]
    expected = model.encode_images(images(kind), return_intermediates=True)
    assert_same_function(deployed.encode_images(images(kind), return_intermediates=True), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_normalisation_is_folded(kind):
    """Raw pixels give what normalised ones give, also where the patch embedding has no bias."""
    model = reference(kind)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    side = model.config.vision.image_size
    pixels = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0))
    scaled = [(pixels[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)]
    found = deploy(model, fold_normalization(mean, std))(pixels.to(torch.uint8))
    error = (found - model(torch.stack(scaled, dim=1))).abs().max().item()
    assert error <= 100 * TOLERANCES["rewrite-float64"].value


def test_class_token_of_clip_is_dropped_in_its_last_block():
    """The other blocks have 37 tokens, the last one hands on 36."""
    deployed = deploy(reference("clip"), REWRITES["drop-class-token"])
    tokens = torch.zeros(1, 37, 24, dtype=torch.float64)
    assert deployed.tower.blocks[0](tokens).shape == (1, 37, 24)
    assert deployed.tower.blocks[1](tokens).shape == (1, 36, 24)
