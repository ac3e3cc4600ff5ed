"""Computing the first query layer up to its cross-attention queries at export."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from torch import nn

from pargo_export.rewrite.precompute_first_layer import PRECOMPUTE_FIRST_LAYER, Precomputed


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """One place in a projector with query layers, none in the others."""
    check_rewrite(PRECOMPUTE_FIRST_LAYER, name, alone=int(name in QUERY_CASES))


@pytest.mark.parametrize("name", QUERY_CASES)
def test_constants_replace_the_computation(name):
    """Two constants of batch 1 are left: the state and the queries that go into the first cross-attention."""
    projector = exact_case(name).model.projector
    layer = projector.layers[0]
    state = layer.self_attention(projector.embedding())
    deployed = deploy(exact_case(name).model, PRECOMPUTE_FIRST_LAYER).projector
    first = deployed.layers[0]
    assert isinstance(deployed.embedding, Precomputed)
    assert isinstance(first.self_attention, nn.Identity)
    assert torch.equal(deployed.embedding.value, state)
    assert torch.equal(first.cross_attention.query.value, layer.cross_attention.query(state))
    assert deployed.embedding.value.shape[0] == 1
    gone = (
        "projector.embedding.",
        "projector.layers.0.self_attention.",
        "projector.layers.0.cross_attention.query.",
    )
    left = deploy(exact_case(name).model, PRECOMPUTE_FIRST_LAYER).state_dict()
    assert not [key for key in left if key.startswith(gone)]


def test_later_layers_are_left_alone():
    """The second layer still attends to itself: its input depends on the image."""
    deployed = deploy(exact_case("pargo_w2").model, PRECOMPUTE_FIRST_LAYER)
    assert isinstance(deployed.projector.layers[1].cross_attention.query, nn.Linear)
    assert not isinstance(deployed.projector.layers[1].self_attention, nn.Identity)
