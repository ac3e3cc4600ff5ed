"""Merging query, key and value projections."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from torch import nn

from pargo_export.rewrite.drop_key_bias import DROP_KEY_BIAS
from pargo_export.rewrite.merge_qkv import MERGE_QKV, MergedQKV, merge_linears

# Tower blocks and self-attentions of the query layers.
COUNTS = {
    "pargo_w2": 3 + 4,
    "pargo_w4_freq2": 2 + 4,
    "pargo_small_variance": 2 + 2,
    "qformer": 2 + 4,
    "linear": 2,
    "mlp": 1,
}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every self-attention is changed, but for the first query layer's where that is computed already."""
    precomputed = int(name in QUERY_CASES)
    check_rewrite(MERGE_QKV, name, alone=COUNTS[name], on_top=COUNTS[name] - precomputed)


@pytest.mark.parametrize("name", CASES)
def test_one_projection_is_left(name):
    """Rows are query, key, value, in this order; the missing key bias is zero where others have one."""
    model = exact_case(name).model
    deployed = deploy(model, MERGE_QKV)
    for before, after in zip(model.tower.blocks, deployed.tower.blocks, strict=True):
        parts, merged = before.attention.qkv, after.attention.qkv.merged
        weights = [parts.query.weight, parts.key.weight, parts.value.weight]
        assert torch.equal(merged.weight, torch.cat(weights))
        biases = [parts.query.bias, torch.zeros_like(parts.query.bias), parts.value.bias]
        assert torch.equal(merged.bias, torch.cat(biases))
    assert sum(isinstance(module, MergedQKV) for module in deployed.modules()) == COUNTS[name]
    assert not [key for key in deployed.state_dict() if ".qkv.query." in key]


def test_without_any_bias_the_merged_projection_has_none():
    """No row of zeros is made up."""
    parts = [nn.Linear(3, 4, bias=False, dtype=torch.float64) for _ in range(2)]
    merged = merge_linears(parts)
    assert merged.bias is None
    assert (merged.in_features, merged.out_features) == (3, 8)
    assert merged.weight.dtype == torch.float64


def test_a_dropped_key_bias_stays_dropped():
    """Merging after drop-key-bias adds zeros for the keys of the query layers."""
    model = exact_case("pargo_w2").model
    merged = deploy(model, DROP_KEY_BIAS, MERGE_QKV).projector.layers[1].self_attention.qkv.merged
    query, key, value = merged.bias.chunk(3)
    assert not key.any()
    assert query.any()
    assert value.any()
