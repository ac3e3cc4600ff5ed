"""Dropping the class token inside the last tower block."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from torch import nn

from pargo_export.rewrite.drop_class_token import DROP_CLASS_TOKEN


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """One block is changed, also where it is the only one (`mlp`)."""
    check_rewrite(DROP_CLASS_TOKEN, name, alone=1)


@pytest.mark.parametrize("name", CASES)
def test_only_the_last_block_gives_patches_alone(name):
    """Earlier blocks keep 1 + N tokens, the last gives N, and nothing is cut off after it."""
    case = exact_case(name)
    deployed = deploy(case.model, DROP_CLASS_TOKEN)
    sizes = []
    for block in deployed.tower.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[1]))
    deployed.image_features(case.images)
    num_patches = case.model.config.vision.num_patches
    assert sizes == [1 + num_patches] * (len(sizes) - 1) + [num_patches]
    assert isinstance(deployed.select_patches, nn.Identity)


def test_the_class_token_is_still_read_by_the_patches():
    """Its key and value take part: another class token changes the patches."""
    case = exact_case("mlp")  # a single block, so that only its own attention can carry the class token over
    deployed = deploy(case.model, DROP_CLASS_TOKEN)
    before = deployed.image_features(case.images)
    embedding = deployed.tower.embedding
    embedding.class_token = nn.Parameter(
        embedding.class_token + torch.arange(embedding.class_token.shape[-1])
    )
    assert (deployed.image_features(case.images) - before).abs().max().item() > 1e-3


def test_sizes_inside_the_last_block():
    """Feed-forward and output projection see N tokens, keys and values 1 + N."""
    case = exact_case("pargo_w2")
    last = deploy(case.model, DROP_CLASS_TOKEN).tower.blocks[-1]
    seen = {}

    def record(name):
        return lambda _module, inputs: seen.__setitem__(name, [value.shape[-2] for value in inputs])

    last.mlp.register_forward_pre_hook(record("mlp"))
    last.attention.output.register_forward_pre_hook(record("output"))
    last.attention.core.register_forward_pre_hook(record("core"))
    last(torch.zeros(1, 37, 64, dtype=torch.float64))
    assert seen == {"mlp": [36], "output": [36], "core": [36, 37, 37]}
