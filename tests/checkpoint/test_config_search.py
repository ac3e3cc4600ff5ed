"""Where the configuration comes from when none is given."""

from __future__ import annotations

import json
import shutil

import pytest
from checkpoint_samples import golden_tensors, save_index, save_safetensors, save_torch
from golden_cases import golden_case
from safetensors.torch import save_file

from pargo_export.checkpoint.config_file import read_config
from pargo_export.checkpoint.config_search import METADATA_KEY
from pargo_export.checkpoint.presets import preset
from pargo_export.checkpoint.reader import open_checkpoint
from pargo_export.checkpoint.resolution import resolve_config
from pargo_export.errors import ConfigError

CONFIG = resolve_config(read_config(golden_case("qformer").config), {})


def test_metadata_comes_first(tmp_path):
    """The configuration inside a safetensors file wins over one beside it."""
    path = tmp_path / "weights.safetensors"
    save_file(golden_tensors("qformer"), path, metadata={METADATA_KEY: CONFIG.model_dump_json()})
    (tmp_path / "config.json").write_text('{"fusion_method": "linear"}', encoding="utf-8")
    opened = open_checkpoint(path)
    assert (opened.config, opened.config_source) == (CONFIG, "metadata of weights.safetensors")


@pytest.mark.parametrize("content", ["{", "[]", '{"projector": {"zzz": 1}}'])
def test_broken_metadata(tmp_path, content):
    """A broken configuration in the metadata is an error, not skipped."""
    path = tmp_path / "weights.safetensors"
    save_file(golden_tensors("qformer"), path, metadata={METADATA_KEY: content})
    with pytest.raises(ConfigError, match=r"metadata|unknown field"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["weights.json", "config.json"])
def test_file_beside_the_checkpoint(tmp_path, name):
    """`NAME.json` and `config.json` beside a checkpoint are found."""
    path = save_torch(tmp_path / "weights.pt", golden_tensors("qformer"))
    shutil.copy(golden_case("qformer").config, tmp_path / name)
    opened = open_checkpoint(path)
    assert (opened.config, opened.config_source) == (CONFIG, name)


def test_file_beside_an_index(tmp_path):
    """A directory of shards with its configuration opens as a whole."""
    save_index(tmp_path, golden_tensors("qformer"))
    shutil.copy(golden_case("qformer").config, tmp_path / "config.json")
    assert open_checkpoint(tmp_path).config == CONFIG


def test_foreign_config_is_passed_over(tmp_path):
    """The config.json of a language model beside the checkpoint does not get in the way."""
    path = save_torch(tmp_path / "weights.pt", golden_tensors("linear"))
    (tmp_path / "config.json").write_text('{"architectures": ["InternLM2ForCausalLM"]}', encoding="utf-8")
    assert open_checkpoint(path).config.projector.kind == "linear"


def test_preset_with_the_same_shapes(tmp_path):
    """Without any file, the preset whose shapes are all the same is taken and the report says so."""
    path = save_safetensors(tmp_path / "weights.safetensors", golden_tensors("pargo_w2"))
    opened = open_checkpoint(path)
    assert (opened.config, opened.config_source) == (preset("tiny"), "preset tiny")
    assert "preset tiny was taken because every shape agrees" in opened.notes[-1]


def test_nothing_found(tmp_path):
    """Other shapes without a configuration: the error lists what is missing, not what the shapes show."""
    path = save_safetensors(tmp_path / "weights.safetensors", golden_tensors("pargo_w4_freq2"))
    with pytest.raises(
        ConfigError, match="no configuration was given or found: the tensors do not show"
    ) as caught:
        open_checkpoint(path)
    assert "projector.num_partial_tokens" in str(caught.value)
    assert "projector.hidden_size" not in str(caught.value)


def test_given_configuration_wins(tmp_path):
    """A configuration that is given is used, whatever lies beside the checkpoint."""
    path = save_torch(tmp_path / "weights.pt", golden_tensors("qformer"))
    (tmp_path / "config.json").write_text(json.dumps({"fusion_method": "linear"}), encoding="utf-8")
    assert open_checkpoint(path, CONFIG).config_source == "config"
