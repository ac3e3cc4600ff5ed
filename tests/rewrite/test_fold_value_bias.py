"""Folding the value bias of the query layers into the output projections."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case

from pargo_export.rewrite.drop_key_bias import DROP_KEY_BIAS
from pargo_export.rewrite.fold_output_norm import FOLD_OUTPUT_NORM
from pargo_export.rewrite.fold_value_bias import FOLD_VALUE_BIAS
from pargo_export.rewrite.merge_cross_kv import MERGE_CROSS_KV

# Self-attentions and cross-attentions.
COUNTS = {"pargo_w2": 4 + 4, "pargo_w4_freq2": 4 + 2, "pargo_small_variance": 2 + 2, "qformer": 4 + 2}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every attention of the query layers is changed; `linear` and `mlp` have none."""
    check_rewrite(FOLD_VALUE_BIAS, name, alone=COUNTS.get(name, 0))


@pytest.mark.parametrize("name", QUERY_CASES)
def test_value_biases_are_left_in_the_tower_only(name):
    """The tower keeps its value biases, because a LayerNorm stands before its output projection."""
    model = exact_case(name).model
    left = [key for key in deploy(model, FOLD_VALUE_BIAS).state_dict() if key.endswith(".value.bias")]
    assert left == [
        f"tower.blocks.{block}.attention.qkv.value.bias" for block in range(model.config.vision.num_layers)
    ]


@pytest.mark.parametrize("name", QUERY_CASES)
def test_the_projection_of_the_image_features_has_no_bias_at_last(name):
    """The offset of `ln_vision` turns into key and value biases, and both vanish."""
    rewrites = (FOLD_OUTPUT_NORM, DROP_KEY_BIAS, FOLD_VALUE_BIAS, MERGE_CROSS_KV)
    deployed = deploy(exact_case(name).model, *rewrites)
    assert deployed.projector.context.merged.bias is None
    model = deploy(exact_case(name).model, *rewrites[:3])
    for layer in model.projector.layers:
        if layer.cross_attention is not None:
            assert layer.cross_attention.key_value.key.bias is None
            assert layer.cross_attention.key_value.value.bias is None


def test_output_bias_takes_what_the_values_lose():
    """The new bias is O b + c."""
    model = exact_case("pargo_w2").model
    before = model.projector.layers[1].cross_attention
    after = deploy(model, FOLD_VALUE_BIAS).projector.layers[1].cross_attention
    expected = before.output(before.key_value.value.bias)
    assert torch.allclose(after.output.bias, expected, rtol=0, atol=1e-14)
    assert after.output.weight is before.output.weight
