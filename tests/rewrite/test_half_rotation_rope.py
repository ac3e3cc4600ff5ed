"""Rotating halves of a head instead of interleaved pairs."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from tolerances import TOLERANCES

from pargo_export.model.attention import split_heads
from pargo_export.rewrite.half_rotation_rope import HALF_ROTATION_ROPE

BLOCKS = {"pargo_w2": 3, "mlp": 1}  # 2 elsewhere


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every block of the tower is changed."""
    check_rewrite(HALF_ROTATION_ROPE, name, alone=BLOCKS.get(name, 2))


def rotated(attention, tokens):
    """Return the query and key heads after the rotation, and the value heads."""
    query, key, value = (split_heads(part, attention.num_heads) for part in attention.qkv(tokens))
    return attention.rope(query), attention.rope(key), value


@pytest.mark.parametrize("name", CASES)
def test_scores_are_the_same_and_values_untouched(name):
    """Query and key channels move together, value channels not at all."""
    model = exact_case(name).model
    generator = torch.Generator().manual_seed(3)
    shape = (2, 1 + model.config.vision.num_patches, model.config.vision.width)
    tokens = torch.randn(shape, dtype=torch.float64, generator=generator)
    before = rotated(model.tower.blocks[0].attention, tokens)
    after = rotated(deploy(model, HALF_ROTATION_ROPE).tower.blocks[0].attention, tokens)
    scores = [query @ key.transpose(-1, -2) for query, key, _ in (before, after)]
    assert (scores[0] - scores[1]).abs().max().item() <= TOLERANCES["rewrite-float64"].value
    assert torch.equal(before[2], after[2])
    # Channel k and k + D/2 are the old channels 2k and 2k + 1.
    half_first = torch.cat([before[0][..., ::2], before[0][..., 1::2]], dim=-1)
    assert (half_first - after[0]).abs().max().item() <= TOLERANCES["rewrite-float64"].value


def test_class_token_is_not_turned():
    """Its row of the tables is cosine 1 and sine 0, exactly."""
    model = exact_case("pargo_w2").model
    rope = deploy(model, HALF_ROTATION_ROPE).tower.blocks[0].attention.rope
    heads = torch.randn(2, 4, 37, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert torch.equal(rope(heads)[:, :, 0], heads[:, :, 0])
    assert not torch.equal(rope(heads)[:, :, 1:], heads[:, :, 1:])


def test_all_blocks_share_one_table():
    """They turn by the same angles, so the graph holds them once."""
    deployed = deploy(exact_case("pargo_w2").model, HALF_ROTATION_ROPE)
    tables = {block.attention.rope.cos.data_ptr() for block in deployed.tower.blocks}
    assert len(tables) == 1


def traced_operators(module, *example):
    """Return (operator, arguments) of everything that a module computes."""
    graph = torch.export.export(module, example).graph
    return [(str(node.target), node.args) for node in graph.nodes if node.op == "call_function"]


def test_rotation_has_no_strided_slicing():
    """Halves are split and concatenated: no slice with a step, no stack, no gather."""
    model = exact_case("pargo_w2").model
    heads = torch.zeros(2, 4, 37, 16, dtype=torch.float64)

    def strided(rope):
        operators = traced_operators(rope, heads)
        return [
            name
            for name, arguments in operators
            if "stack" in name
            or "gather" in name
            or "index" in name
            or ("slice" in name and len(arguments) > 4 and arguments[4] != 1)
        ]

    assert strided(model.tower.blocks[0].attention.rope)
    assert not strided(deploy(model, HALF_ROTATION_ROPE).tower.blocks[0].attention.rope)
