"""CLIP and SigLIP directories of `transformers`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vit_cases import KINDS, TOWERS, load_vit, vit_io, write_projector

from pargo_export.checkpoint.vision_model import is_vision_model, open_vision_model
from pargo_export.errors import CheckpointError, ConfigError, StateDictError, UnsafeCheckpointError
from pargo_export.model.loading import load_checkpoint

# The content of config.json as published: what is left out has the defaults of the configuration class.
CLIP_L_336 = {
    "model_type": "clip",
    "text_config": {"hidden_size": 768},
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
SO400M_384 = {
    "model_type": "siglip",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
PICTURES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.fixture
def copy(tmp_path):
    """Return a function that copies a golden directory and changes its `config.json`."""

    def make(kind: str, **changes: object) -> Path:
        directory = Path(shutil.copytree(TOWERS / kind, tmp_path / "tower"))
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return make


def _published(directory, content):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(content))
    side = content["vision_config"]["image_size"]
    pictures = PICTURES | {"size": {"height": side, "width": side}}
    (directory / "preprocessor_config.json").write_text(json.dumps(pictures))
    save_file({"vision_model.post_layernorm.bias": torch.zeros(1)}, directory / "model.safetensors")
    return open_vision_model(directory).config


def test_clip_as_published(tmp_path):
    """openai/clip-vit-large-patch14-336: the penultimate of 24 blocks, 576 image tokens."""
    config = _published(tmp_path / "clip", CLIP_L_336)
    assert (config.num_layers, config.num_published_layers, config.vision_layer) == (23, 24, -2)
    assert (config.num_patches, config.head_width, config.hidden_width) == (576, 64, 4096)
    assert (config.activation, config.layer_norm_eps) == ("quick_gelu", 1e-5)
    assert not config.has_final_norm


def test_siglip_as_published(tmp_path):
    """google/siglip-so400m-patch14-384: 27 x 27 patches, 6 pixels unseen, its last hidden state."""
    config = _published(tmp_path / "siglip", SO400M_384)
    assert (config.num_layers, config.vision_layer, config.has_final_norm) == (27, -1, True)
    assert (config.num_patches, config.head_width) == (729, 72)
    assert (config.activation, config.layer_norm_eps) == ("gelu_tanh", 1e-6)


@pytest.mark.parametrize(("kind", "patch_size", "eps"), [("clip", 32, 1e-5), ("siglip", 16, 1e-6)])
def test_what_a_published_file_leaves_out(tmp_path, kind, patch_size, eps):
    """It has the defaults of the configuration class."""
    config = _published(tmp_path / kind, {"model_type": kind, "vision_config": {"image_size": 96}})
    assert (config.patch_size, config.num_patches) == (patch_size, (96 // patch_size) ** 2)
    assert (config.width, config.head_width, config.hidden_width) == (768, 64, 3072)
    assert (config.num_published_layers, config.in_channels, config.layer_norm_eps) == (12, 3, eps)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("quick_gelu", "quick_gelu"),
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
    ],
)
def test_activations(copy, name, activation):
    """Of the two names of the approximation by a tanh, both are known."""
    assert open_vision_model(copy("clip", hidden_act=name)).config.activation == activation


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_every_release(kind, copy, tmp_path):
    """The prefix `vision_model.`, the text tower beside it and position indices change nothing."""
    directory, weights = copy(kind), load_file(TOWERS / kind / "model.safetensors")
    others = {
        "logit_scale": torch.zeros(()),
        "text_model.embeddings.token_embedding.weight": torch.zeros(2, 2),
    }
    others |= {"visual_projection.weight": torch.zeros(2, 2)}
    others |= {"vision_model.embeddings.position_ids": torch.arange(4)}
    save_file(
        others | {f"vision_model.{key}": value for key, value in weights.items()},
        directory / "model.safetensors",
    )
    model = load_checkpoint(write_projector(tmp_path, kind), None, directory)
    expected = load_vit(tmp_path, kind)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in model.state_dict().items())
    ignored = {group.name: group.num_tensors for group in model.report.ignored}
    assert ignored["text tower and projections of CLIP or SigLIP"] == 3
    assert ignored["position indices of the tower"] == 1


def test_both_formats(copy, tmp_path):
    """Where the weights lie in both formats the safe one is read; a file of torch.save alone is read without code."""
    directory, weights = copy("clip"), load_file(TOWERS / "clip" / "model.safetensors")
    torch.save({"embeddings.class_embedding": print}, directory / "pytorch_model.bin")
    projector = write_projector(tmp_path)
    assert load_checkpoint(projector, None, directory).report.notes
    (directory / "model.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match="refused, because reading it would call"):
        load_checkpoint(projector, None, directory)
    torch.save(weights, directory / "pytorch_model.bin")
    assert load_checkpoint(projector, None, directory).report.num_tensors > 0


def test_report(tmp_path):
    """What is behind the features is counted, and the layer is said."""
    report = load_vit(tmp_path, "clip").report
    assert {group.name: group.num_tensors for group in report.ignored} == {
        "blocks of the tower behind the image features": 16,
        "last norm of the tower": 2,
    }
    assert "image features: hidden_states[-2] of clip with 3 blocks; the usual place" in report.notes[0]
    assert "model.safetensors" in [record.name for record in report.files]
    notes = load_vit(tmp_path, "siglip", -3).report.notes
    assert notes[0] == "image features: hidden_states[-3] of siglip with 3 blocks"


@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, tmp_path):
    """Every layer gives what `transformers` hands out there, the class token left out."""
    io = vit_io(kind)
    first = int(kind == "clip")
    for layer, key in ((-1, "hidden_states.3"), (-3, "hidden_states.1"), ("last", "last_hidden_state")):
        model = load_vit(tmp_path, kind, layer)
        found = model.select_patches(model.tower(io["pixel_values"]))
        assert (found - io[key][:, first:]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "dinov2"},
            "found model_type 'dinov2', expected one of clip, clip_vision_model, siglip",
        ),
        ({"model_type": "siglip2"}, "NaFlex inputs have no fixed patch grid"),
        ({"hidden_act": "silu"}, "found hidden_act 'silu', expected one of quick_gelu"),
        ({"num_attention_heads": 5}, "hidden_size 24 is not a multiple of num_attention_heads 5"),
        ({"num_hidden_layers": None}, "found num_hidden_layers None, expected a positive integer"),
        ({"image_size": [24, 20]}, r"found image_size \[24, 20\], expected a square"),
        ({"patch_size": 48}, "image_size 24 is smaller than a patch of 48"),
        ({"intermediate_size": "big"}, "config.json: hidden_width: Input should be a valid integer"),
        ({"vision_config": 3}, "vision_config is a int, expected an object"),
    ],
)
def test_other_architectures_are_refused(copy, changes, message):
    """What the reference does not compute is named, with what it does."""
    with pytest.raises(ConfigError, match=message):
        open_vision_model(copy("clip", **changes))


@pytest.mark.parametrize("layer", [0, -4, 2])
def test_layers_that_are_not_there(layer):
    """The numbers that work are named."""
    with pytest.raises(
        ConfigError, match=f"vision layer {layer}: .* has 3 blocks; expected 'last', or a number from -3"
    ):
        open_vision_model(TOWERS / "clip", layer)


def test_missing_files(copy, tmp_path):
    """A directory without configuration, pictures or weights is refused by what is missing."""
    with pytest.raises(ConfigError, match=r"found no config.json, expected a directory of transformers"):
        open_vision_model(tmp_path)
    directory = copy("clip")
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"found no checkpoint .*; expected model.safetensors"):
        open_vision_model(directory)
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"found no preprocessor_config.json, which has mean and standard"):
        open_vision_model(directory)


def test_weights_of_another_size(copy, tmp_path):
    """Tensors that do not fit the directory's own configuration are named as they are in the file."""
    directory = copy("clip", intermediate_size=48)
    with pytest.raises(
        StateDictError, match=r"encoder.layers.0.mlp.fc1.weight \(found \[40, 24\], expected \[48, 24\]\)"
    ):
        load_checkpoint(write_projector(tmp_path), None, directory)
    directory = copy_without(directory, "encoder.layers.1.layer_norm1.bias", tmp_path / "less")
    with pytest.raises(
        StateDictError, match=r"1 missing: visual_encoder.vision_model.encoder.layers.1.layer_norm1.bias"
    ):
        load_checkpoint(write_projector(tmp_path), None, directory)


def copy_without(directory: Path, key: str, target: Path) -> Path:
    """Copy the golden CLIP without one tensor."""
    shutil.copytree(TOWERS / "clip", target)
    weights = load_file(TOWERS / "clip" / "model.safetensors")
    del weights[key]
    save_file(weights, target / "model.safetensors")
    assert directory != target
    return target


def test_another_tower_in_the_configuration(tmp_path):
    """A configuration may leave the tower out, and may not describe another one."""
    path = write_projector(tmp_path)
    content = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(content | {"vision": {"width": 64, "image_size": 24}}))
    with pytest.raises(
        ConfigError, match=r"vision.width 64 \(width of the vision model: 24\)\. Leave the tower out"
    ):
        load_checkpoint(path, None, TOWERS / "clip")


def test_a_checkpoint_without_its_tower(tmp_path):
    """A whole configuration of such a model needs no directory, but then the weights must be there."""
    model = load_vit(tmp_path, "siglip")
    with pytest.raises(StateDictError, match=r"give the directory of the vision model \(--vision-model\)"):
        load_checkpoint(tmp_path / "projector.safetensors", model.config)


def test_a_projector_of_another_width(tmp_path):
    """The widths that do not fit are both named."""
    path = write_projector(tmp_path)
    content = json.loads(path.with_suffix(".json").read_text())
    weights = load_file(path)
    weights = {
        key: value[:, :20].contiguous()
        if "crossattention.self.key.w" in key or "crossattention.self.value.w" in key
        else value
        for key, value in weights.items()
    }
    save_file(
        {key: value[:20] if key.startswith("ln_vision") else value for key, value in weights.items()}, path
    )
    content["projector"]["encoder_width"] = 20
    path.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"projector.encoder_width 20 differs from vision.width 24"):
        load_checkpoint(path, None, TOWERS / "clip")


def test_what_is_a_vision_model(copy, tmp_path):
    """A directory of transformers is one; an EVA-CLIP directory and a single file are not."""
    assert is_vision_model(TOWERS / "clip")
    assert not is_vision_model(tmp_path)
    assert not is_vision_model(TOWERS / "clip" / "model.safetensors")
    assert not is_vision_model(copy("clip", architectures=["EvaCLIPModel"]))


def test_transformers_is_not_needed(tmp_path, monkeypatch):
    """The directory is read where `transformers` cannot be imported."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert load_vit(tmp_path, "clip").config.vision.kind == "clip"
