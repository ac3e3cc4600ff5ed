"""A checkpoint becomes a model: strictly, and with one copy of its weights."""

from __future__ import annotations

import copy

import pytest
import torch
from checkpoint_samples import golden_tensors, save_index, save_safetensors, save_torch
from golden_cases import golden_case, golden_model

from pargo_export.errors import StateDictError
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import load_checkpoint
from pargo_export.model.tower import rotary_tables

CASE = golden_case("pargo_w2")
TENSORS = golden_tensors("pargo_w2")


def load(tmp_path, tensors):
    """Load tensors with the configuration of the golden case."""
    return load_checkpoint(save_torch(tmp_path / "weights.pt", tensors), CASE.config)


def test_loaded_model_is_ready():
    """The model is real, frozen, in evaluation mode, complete with buffers and report."""
    model = golden_model("pargo_w2")
    assert not model.training
    assert all(not parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())
    cosines, sines = rotary_tables(model.config.vision)
    for block in model.tower.blocks:
        assert torch.equal(block.attention.rope.cos, cosines)
        assert torch.equal(block.attention.rope.sin, sines)
    assert model.report.num_tensors == len(model.state_dict())
    assert VisualFrontEnd(model.config).report is None
    assert copy.deepcopy(model).report == model.report


def test_all_files_give_the_same_model(tmp_path):
    """One file, shards and the older formats load to the same outputs."""
    save_index(tmp_path, TENSORS)
    expected = golden_model("pargo_w2")(CASE.images)
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "model.safetensors.index.json", tmp_path / "old.pth"):
        assert torch.equal(load_checkpoint(path, CASE.config)(CASE.images), expected)


def test_missing_and_unexpected_tensors_are_listed_in_full(tmp_path):
    """One error names every missing, unexpected and misshapen tensor by its official name."""
    tensors = dict(TENSORS)
    missing = [key for key in tensors if "blocks.1.attn.q" in key or ".layer.2.output_query" in key]
    for key in missing:
        del tensors[key]
    tensors |= {f"extra.{index}": torch.ones(1) for index in range(30)}
    tensors["llm_proj.weight"] = torch.ones(80, 47)
    with pytest.raises(StateDictError) as caught:
        load(tmp_path, tensors)
    message = str(caught.value)
    assert f"{len(missing)} missing: " in message
    assert "30 unexpected: " in message
    assert all(name in message for name in (*missing, *(f"extra.{index}" for index in range(30))))
    assert "1 of the wrong shape: llm_proj.weight (found [80, 47], expected [80, 48])" in message


@pytest.mark.parametrize("key", [key for key in TENSORS if "rope" not in key and "position_ids" not in key])
def test_every_weight_is_needed(tmp_path, key):
    """Without any one of the weights the checkpoint is refused and the weight is named."""
    with pytest.raises(StateDictError, match=rf"1 missing: {key}\."):
        load(tmp_path, {name: value for name, value in TENSORS.items() if name != key})


def test_stored_keys_are_named(tmp_path):
    """An unexpected key is named as it is stored, so that it can be found."""
    tensors = {f"module.{key}": value for key, value in TENSORS.items()} | {"module.extra": torch.ones(1)}
    with pytest.raises(StateDictError, match=r"1 unexpected: module\.extra"):
        load(tmp_path, tensors)


def test_missing_tower_points_to_the_vision_checkpoint(tmp_path):
    """A fusion-only checkpoint is told what to add."""
    tensors = {key: value for key, value in TENSORS.items() if "visual_encoder" not in key}
    with pytest.raises(StateDictError, match=r"71 missing: visual_encoder.*--vision-checkpoint"):
        load(tmp_path, tensors)


def test_weights_of_another_projector_are_unexpected(tmp_path):
    """Weights that are known but do not belong to this configuration are unexpected."""
    tensors = golden_tensors("linear") | {"ParGo.bert.embeddings.LayerNorm.bias": torch.ones(4)}
    path = save_safetensors(tmp_path / "weights.safetensors", tensors)
    with pytest.raises(StateDictError, match=r"1 unexpected: ParGo\.bert\.embeddings\.LayerNorm\.bias"):
        load_checkpoint(path, golden_case("linear").config)


@pytest.mark.parametrize(
    "key",
    [
        "visual_encoder.rope.freqs_cos",
        "visual_encoder.blocks.2.attn.rope.freqs_sin",
        "ParGo.bert.embeddings.position_ids",
    ],
)
def test_every_copy_of_a_buffer_is_checked(tmp_path, key):
    """One changed value in one copy is found, and the fields that decide it are named."""
    changed = TENSORS[key].clone()
    changed.view(-1)[5] += 1
    with pytest.raises(
        StateDictError, match=rf"1 stored buffers.*{key} differs by .*decided by (vision|projector)\."
    ):
        load(tmp_path, TENSORS | {key: changed})


def test_buffer_of_another_shape(tmp_path):
    """A buffer of another shape is named with both shapes."""
    key = "visual_encoder.blocks.0.attn.rope.freqs_cos"
    with pytest.raises(StateDictError, match=r"freqs_cos has shape \[35, 16\], expected \[36, 16\]"):
        load(tmp_path, TENSORS | {key: TENSORS[key][1:]})


@pytest.mark.parametrize(("field", "value"), [("pt_hw_seq_len", 24), ("intp_freq", False)])
def test_buffers_catch_a_wrong_rotary_configuration(field, value):
    """Fields that no shape shows are caught by the stored rotary tables."""
    values = CASE.values
    values["create_eva_vit"][field] = value
    with pytest.raises(StateDictError, match=r"8 stored buffers .*rope_grid and rope_interpolate"):
        load_checkpoint(CASE.checkpoint, values)


def test_buffers_may_be_absent(tmp_path):
    """A checkpoint without derived buffers is complete if the configuration tells the head width."""
    tensors = {
        key: value for key, value in TENSORS.items() if "rope" not in key and "position_ids" not in key
    }
    assert load(tmp_path, tensors).report.num_buffers == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoint(tmp_path, dtype):
    """A checkpoint stored in half precision, buffers too, loads as its rounded weights."""
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in TENSORS.items()}
    rounded = {
        key: value.float() if value.is_floating_point() and "rope" not in key else TENSORS[key]
        for key, value in stored.items()
    }
    found, expected = load(tmp_path, stored)(CASE.images), load(tmp_path, rounded)(CASE.images)
    assert torch.equal(found, expected)
