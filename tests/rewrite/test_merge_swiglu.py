"""Merging the two input projections of the SwiGLU."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case

from pargo_export.rewrite.merge_swiglu import MERGE_SWIGLU
from pargo_export.rewrite.pad_swiglu import PAD_SWIGLU

BLOCKS = {"pargo_w2": 3, "mlp": 1}  # 2 elsewhere


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every block of the tower is changed."""
    check_rewrite(MERGE_SWIGLU, name, alone=BLOCKS.get(name, 2))


def test_gate_comes_before_up():
    """One weight holds the gate's rows, then those of the value."""
    model = exact_case("pargo_w2").model
    deployed = deploy(model, MERGE_SWIGLU)
    for before, after in zip(model.tower.blocks, deployed.tower.blocks, strict=True):
        parts = before.mlp.gate_up
        merged = after.mlp.gate_up.merged
        assert torch.equal(merged.weight, torch.cat([parts.gate.weight, parts.up.weight]))
        assert torch.equal(merged.bias, torch.cat([parts.gate.bias, parts.up.bias]))


def test_padding_survives_the_merge():
    """Each half keeps its own padded rows."""
    model = exact_case("pargo_w2").model
    merged = deploy(model, PAD_SWIGLU, MERGE_SWIGLU).tower.blocks[0].mlp.gate_up.merged
    assert merged.out_features == merged.weight.shape[0] == 2 * 192
    for half in merged.weight.chunk(2):
        assert half[:170].any(dim=1).all()
        assert not half[170:].any()
