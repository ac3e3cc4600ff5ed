"""Our towers against `transformers` itself; the only file of tests that imports it for vision models."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from vit_cases import TOWERS

from pargo_export.checkpoint.contents import leave_out_unused, sort_tensors
from pargo_export.checkpoint.vision_model import open_vision_model
from pargo_export.config import ModelConfig
from pargo_export.model.vit_tower import VitTower

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; it is what is compared with"
)

ODD = {
    "hidden_size": 30,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "patch_size": 3,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 9,
}
PICTURES = '{"image_mean": 0.5, "image_std": 0.5, "size": 14}'
CASES = {
    "clip": ("CLIPModel", "CLIPConfig", {"image_size": 14}),
    "clip-gelu": (
        "CLIPModel",
        "CLIPConfig",
        {"image_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-2},
    ),
    "siglip": ("SiglipModel", "SiglipConfig", {"image_size": 14, "num_channels": 1}),
    "siglip-quick-gelu": ("SiglipModel", "SiglipConfig", {"image_size": 12, "hidden_act": "quick_gelu"}),
}


def our_tower(directory, layer):
    """Load the tower of a directory, as `load_checkpoint` does."""
    opened = open_vision_model(directory, layer)
    projector = {"kind": "linear", "encoder_width": 30, "llm_hidden_size": 4, "tokens_per_group": 1}
    config = ModelConfig.parse({"vision": opened.config, "projector": projector}, source="test")
    weights = leave_out_unused(sort_tensors(opened.source), config).weights
    tower = VitTower(opened.config)
    tower.load_state_dict({name.removeprefix("tower."): weight.read() for name, weight in weights.items()})
    return tower


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_layer_is_that_of_transformers(name, tmp_path):
    """Whole CLIP and SigLIP models of odd sizes, saved by `transformers`, give the same hidden states."""
    model_class, config_class, changes = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(vision_config=ODD | changes, text_config=TEXT)
    model = getattr(transformers, model_class)(config).eval()
    for (
        parameter
    ) in model.vision_model.parameters():  # some are initialised so small that nothing would be seen
        parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1) * 0.5)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(PICTURES)
    vision = config.vision_config
    pixels = torch.randn(2, vision.num_channels, vision.image_size, vision.image_size)
    expected = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    for layer in (-1, -2, "last"):
        stored = expected.last_hidden_state if layer == "last" else expected.hidden_states[layer]
        found = our_tower(tmp_path, layer)(pixels)
        error = (found - stored).norm() / stored.norm()
        assert error <= 1e-5, f"{layer}: {error:.3g}"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_goldens_are_what_transformers_computes(kind):
    """The stored outputs, from which the other tests start, are those of the installed `transformers`."""
    name = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}[kind]
    model, io = (
        getattr(transformers, name).from_pretrained(TOWERS / kind),
        load_file(TOWERS / f"{kind}.io.safetensors"),
    )
    found = model(pixel_values=io["pixel_values"], output_hidden_states=True)
    assert (found.last_hidden_state - io["last_hidden_state"]).abs().max() <= 1e-5
    for index, state in enumerate(found.hidden_states):
        assert (state - io[f"hidden_states.{index}"]).abs().max() <= 1e-5
