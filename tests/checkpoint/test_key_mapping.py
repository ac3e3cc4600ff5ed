"""Official names against ours, in both directions."""

from __future__ import annotations

import json

import pytest
import torch
from golden_cases import GOLDEN

from pargo_export.checkpoint.key_mapping import (
    Derived,
    OtherPart,
    Weight,
    canonical_names,
    classify,
    official_name,
)
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.model.frontend import VisualFrontEnd

OFFICIAL = json.loads((GOLDEN / "official_full_keys.json").read_text("utf-8"))["state_dict"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_weight_has_an_official_name(name):
    """Each key of our state dict survives the way to its official name and back."""
    with torch.device("meta"):
        keys = list(VisualFrontEnd(preset(name)).state_dict())
    assert [classify(official_name(key)) for key in keys] == [Weight(key) for key in keys]


def test_every_official_key_of_the_full_size_is_known():
    """Parameters are weights and buffers are derived, in all 675 entries."""
    roles = {key: classify(key) for key in OFFICIAL}
    assert len(roles) == 675
    assert all(
        isinstance(roles[key], Weight if entry["parameter"] else Derived) for key, entry in OFFICIAL.items()
    )


def test_names_that_are_easy_to_swap():
    """The gate is w1, the value w2, the output w3; the biases of queries and values stand alone."""
    prefix = "visual_encoder.blocks.7."
    assert classify(prefix + "mlp.w1.weight") == Weight("tower.blocks.7.mlp.gate_up.gate.weight")
    assert classify(prefix + "mlp.w2.weight") == Weight("tower.blocks.7.mlp.gate_up.up.weight")
    assert classify(prefix + "mlp.w3.bias") == Weight("tower.blocks.7.mlp.down.bias")
    assert classify(prefix + "attn.q_bias") == Weight("tower.blocks.7.attention.qkv.query.bias")
    assert classify(prefix + "attn.v_bias") == Weight("tower.blocks.7.attention.qkv.value.bias")


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("llm_model.model.layers.0.attention.wqkv.weight", "language model"),
        ("llm_model.base_model.model.model.layers.0.attention.wqkv.lora_A.default.weight", "LoRA adapters"),
        ("ParGo.cls.predictions.bias", "text branch"),
        ("ParGo.bert.embeddings.word_embeddings.weight", "text branch"),
        ("ParGo.bert.encoder.layer.3.intermediate.dense.weight", "text branch"),
        ("ParGo.bert.encoder.layer.3.output.LayerNorm.bias", "text branch"),
    ],
)
def test_parts_that_are_not_the_front_end(key, group):
    """Language model, adapters and text branch are recognised as what they are."""
    role = classify(key)
    assert isinstance(role, OtherPart)
    assert role.group.startswith(group)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "query_token",
        "visual_encoder.blocks.0.attn.k_bias",
        "visual_encoder.blocks.00.norm1.weight",
        "visual_encoder.blocks.x.norm1.weight",
        "ParGo.bert.encoder.layer.0.attention.self.query",
        "ParGo.bert.encoder.layer.0.output_query.LayerNorm.gamma",
        "xquery_tokens",
        "my_llm_model.weight",
    ],
)
def test_unexpected_keys(key):
    """A name that merely resembles an official one is unexpected."""
    assert classify(key) is None


@pytest.mark.parametrize(
    "key", ["text.transformer.resblocks.0.ln_1.weight", "logit_scale", "text_projection"]
)
def test_text_tower_of_clip(key):
    """CLIP's text tower belongs to EVA-CLIP files only."""
    assert classify(key, clip=True) == OtherPart("text tower of CLIP")
    assert classify(key) is None


@pytest.mark.parametrize(
    ("container", "stored", "name"),
    [
        ("state dict", "module.query_tokens", "query_tokens"),
        ("module", "_forward_module.module.query_tokens", "query_tokens"),
        ("state dict", "_orig_mod.ln_vision.bias", "ln_vision.bias"),
        ("model", "llama_proj.bias", "llm_proj.bias"),
        ("model/state_dict", "llama_model.lm_head.weight", "llm_model.lm_head.weight"),
        ("state dict", "llama_proj.bias", "llama_proj.bias"),
        ("state dict", "visual.blocks.0.norm1.bias", "visual_encoder.blocks.0.norm1.bias"),
        ("state dict", "llm_model.module.weight", "llm_model.module.weight"),
    ],
)
def test_canonical_names(container, stored, name):
    """Wrapper prefixes and other spellings become official names; the middle of a name is left alone."""
    assert canonical_names([stored], container=container) == {stored: name}
