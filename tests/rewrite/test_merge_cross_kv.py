"""Projecting the image features for all query layers at once."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from torch import nn

from pargo_export.rewrite.merge_cross_kv import MERGE_CROSS_KV

COUNTS = {"pargo_w2": 4, "pargo_w4_freq2": 2, "pargo_small_variance": 2, "qformer": 2}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every cross-attention is changed; `linear` and `mlp` have none."""
    check_rewrite(MERGE_CROSS_KV, name, alone=COUNTS.get(name, 0))


@pytest.mark.parametrize("name", QUERY_CASES)
def test_one_projection_reads_the_image_features(name):
    """Keys and values of all layers come from one weight, two blocks of C rows a layer."""
    model = exact_case(name).model
    deployed = deploy(model, MERGE_CROSS_KV)
    width = model.config.projector.hidden_size
    merged = deployed.projector.context.merged
    assert isinstance(merged, nn.Linear)
    assert merged.weight.shape == (2 * COUNTS[name] * width, model.config.projector.encoder_width)
    expected = [
        linear.weight
        for layer in model.projector.layers
        if layer.cross_attention is not None
        for linear in (layer.cross_attention.key_value.key, layer.cross_attention.key_value.value)
    ]
    assert torch.equal(merged.weight, torch.cat(expected))
    assert not [key for key in deployed.state_dict() if ".key_value." in key]


def test_each_layer_takes_its_own_part():
    """The k-th cross-attention gets the k-th pair, also where layers without one stand between."""
    model = exact_case("pargo_w4_freq2").model
    deployed = deploy(model, MERGE_CROSS_KV)
    features = exact_case("pargo_w4_freq2").expected.image_features
    context = deployed.projector.context(features)
    for layer in (0, 2):
        taken = deployed.projector.layers[layer].cross_attention.key_value(context)
        expected = model.projector.layers[layer].cross_attention.key_value(features)
        for left, right in zip(taken, expected, strict=True):
            assert torch.allclose(left, right, rtol=0, atol=1e-13)
