"""The reference computes what the official implementation computes."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, golden_case, golden_model
from tolerances import TOLERANCES

from pargo_export.model.masks import additive_mask, cross_attention_keep, self_attention_keep

OUTPUTS = {
    "vision_features": "image_features",
    "query_output": "query_output",
    "grouped_features": "query_output",
    "projected": "visual_tokens",
}


@pytest.mark.parametrize("name", CASES)
def test_every_stage_matches_the_official_outputs(name):
    """Image features, query output or groups, and visual tokens are those of the official code."""
    case, found = (
        golden_case(name),
        golden_model(name).encode_images(golden_case(name).images, return_intermediates=True),
    )
    stored = {key: case.io[key] for key in OUTPUTS if key in case.io}
    assert len(stored) == 3
    for key, expected in stored.items():
        error = (found[OUTPUTS[key]] - expected).abs().max().item()
        assert error <= TOLERANCES["golden-reference"].value, f"{name}.{key}: {error:.3g}"


def test_masks_are_exactly_the_official_ones():
    """Both masks are equal bit by bit, for every image of the batch."""
    io = golden_case("pargo_w2").io
    own = torch.from_numpy(additive_mask(self_attention_keep(18, 4)))
    cross = torch.from_numpy(additive_mask(cross_attention_keep(18, 4, 36)))
    assert torch.equal(own, io["self_attention_mask"])
    assert torch.equal(cross.expand_as(io["cross_attention_mask"]), io["cross_attention_mask"])


@pytest.mark.parametrize("name", CASES)
def test_images_do_not_influence_each_other(name):
    """One image alone gives what it gives in a batch."""
    model, images = golden_model(name), golden_case(name).images
    together = model(images)
    alone = torch.cat([model(image[None]) for image in images])
    assert (together - alone).abs().max().item() <= TOLERANCES["golden-reference"].value
