"""The towers of CLIP and SigLIP, and the front-end around them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vit_cases import KINDS, load_vit, vit_config, vit_io

from pargo_export.config import ModelConfig
from pargo_export.errors import ConfigError
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.vit_tower import VitMlp, VitTower


@pytest.mark.parametrize("kind", KINDS)
def test_image_features(kind, tmp_path):
    """The features are the usual layer of `transformers` without the class token, behind `ln_vision`."""
    model, io = load_vit(tmp_path, kind), vit_io(kind)
    stored = io["hidden_states.2"][:, 1:] if kind == "clip" else io["last_hidden_state"]
    found = model.encode_images(io["pixel_values"], return_intermediates=True)
    assert found.image_features.shape == (2, 36, 24)
    assert (found.image_features - model.output_norm(stored)).abs().max() <= 2e-5
    assert found.visual_tokens.shape == (2, 12, 20)


def test_pixels_beyond_the_last_patch_are_not_seen(tmp_path):
    """Of 26 pixels 24 make six patches; the others change nothing."""
    model, images = load_vit(tmp_path, "siglip"), vit_io("siglip")["pixel_values"].clone()
    expected = model(images)
    images[..., 24:] = 7.0
    images[..., 24:, :] = -3.0
    assert torch.equal(model(images), expected)
    images[..., 23] = 7.0
    assert not torch.equal(model(images), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles(kind, tmp_path):
    """Tiles go through the tower one by one, and their tokens lie one after the other."""
    model, images = load_vit(tmp_path, kind), vit_io(kind)["pixel_values"]
    alone = model.image_features(images)
    model.config = model.config.with_tiles(1, 2)
    together = model.image_features(torch.cat([images[:1], images[1:]], dim=-1))
    assert torch.allclose(together, alone.flatten(0, 1)[None], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_comes_back_from_the_manifest(kind):
    """What is written is read as the same record, with the layer in it."""
    config = vit_config(kind)
    stored = config.model_dump(mode="json")
    assert stored["vision"]["kind"] == kind
    assert stored["vision"]["vision_layer"] == {"clip": -2, "siglip": -1}[kind]
    assert ModelConfig.parse(stored, source="manifest.json") == config


def test_only_what_runs_is_built():
    """A CLIP without its last block has no weights of it, and no last norm."""
    names = set(VisualFrontEnd(vit_config("clip", -3)).state_dict())
    assert "tower.blocks.0.norm1.weight" in names
    assert not [name for name in names if name.startswith(("tower.blocks.1.", "tower.final_norm"))]


@pytest.mark.parametrize(("kind", "num_norms"), [("clip", 5), ("siglip", 7)])
def test_every_norm_has_the_epsilon_of_the_file(kind, num_norms):
    """Those of the blocks, the one in front of CLIP's, and SigLIP's last one; `ln_vision` has its own."""
    vision = vit_config(kind).vision.model_copy(update={"layer_norm_eps": 0.25})
    found = [module.eps for module in VitTower(vision).modules() if isinstance(module, nn.LayerNorm)]
    assert found == [0.25] * num_norms


@pytest.mark.parametrize(("kind", "exact"), [("gelu", 0.8413447), ("gelu_tanh", 0.8411920)])
def test_the_two_forms_of_gelu(kind, exact):
    """The normal distribution at 1, and its approximation by a tanh; both to seven digits."""
    mlp = VitMlp(
        vit_config("siglip").vision.model_copy(update={"width": 1, "hidden_width": 1, "activation": kind})
    )
    mlp.load_state_dict(
        {
            f"{name}.{part}": torch.full((1, 1) if part == "weight" else (1,), value)
            for name in ("up", "down")
            for part, value in (("weight", 1.0), ("bias", 0.0))
        }
    )
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(exact, abs=1e-6)


def test_numbers_of_partial_tokens_that_work():
    """729 image tokens, as so400m at 384 pixels has them, take powers of three; the error names them."""
    values = vit_config("siglip").model_dump()
    values["vision"] |= {"image_size": 384, "patch_size": 14}
    values["projector"] |= {"num_partial_tokens": 288, "max_position_embeddings": 300}
    with pytest.raises(
        ConfigError, match=r"729 image tokens .* 288 partial tokens; numbers that work: 1, 3, 9, 27, 81, 243$"
    ):
        ModelConfig.parse(values, source="test")
    values["projector"]["num_partial_tokens"] = 243
    assert ModelConfig.parse(values, source="test").window_size == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "dino"}, "vision.kind: Input should be 'clip' or 'siglip'"),
        ({"vision_layer": 0}, r"vision: vision_layer 0: expected -1 \(the last block\)"),
        ({"head_width": 7}, "vision: width 24 is not a multiple of head_width 7"),
        ({"activation": "relu"}, "vision.activation: Input should be 'quick_gelu', 'gelu' or 'gelu_tanh'"),
    ],
)
def test_broken_configurations(changes, message):
    """A field out of range is named."""
    values = vit_config("clip").model_dump()
    values["vision"] |= changes
    with pytest.raises(ConfigError, match=message):
        ModelConfig.parse(values, source="test")
