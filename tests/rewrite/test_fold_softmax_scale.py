"""Folding the softmax scale into the query projections."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from tolerances import TOLERANCES

from pargo_export.rewrite.attention_forms import ATTENTION_FORMS
from pargo_export.rewrite.fold_softmax_scale import FOLD_SOFTMAX_SCALE

# Tower blocks, self-attentions and cross-attentions.
COUNTS = {
    "pargo_w2": 3 + 4 + 4,
    "pargo_w4_freq2": 2 + 4 + 2,
    "pargo_small_variance": 2 + 2 + 2,
    "qformer": 2 + 4 + 2,
    "linear": 2,
    "mlp": 1,
}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every attention of tower and projector is changed."""
    check_rewrite(FOLD_SOFTMAX_SCALE, name, alone=COUNTS[name])


@pytest.mark.parametrize("attention", ATTENTION_FORMS)
@pytest.mark.parametrize("name", CASES)
def test_no_scale_is_left(name, attention):
    """Every attention core has scale 1, whatever its form."""
    deployed = deploy(exact_case(name).model, FOLD_SOFTMAX_SCALE, attention=attention)
    scales = [module.scale for module in deployed.modules() if hasattr(module, "scale")]
    assert len(scales) == COUNTS[name]
    assert set(scales) == {1.0}


def test_only_the_query_projections_change():
    """Queries are scaled by D ** -0.5, weight and bias; every other weight is shared with the reference."""
    model = exact_case("pargo_w2").model
    deployed = dict(deploy(model, FOLD_SOFTMAX_SCALE).named_parameters())
    changed = set()
    for name, weight in model.named_parameters():
        if deployed[name].data_ptr() == weight.data_ptr():
            continue
        changed.add(name)
        dim = 16 if name.startswith("tower") else 12
        assert (deployed[name] - weight * dim**-0.5).abs().max().item() <= TOLERANCES["rewrite-float64"].value
    assert len(changed) == 2 * COUNTS["pargo_w2"]
    assert all(".query." in name for name in changed)
    assert torch.equal(
        model.tower.blocks[0].attention.qkv.key.weight, deployed["tower.blocks.0.attention.qkv.key.weight"]
    )
