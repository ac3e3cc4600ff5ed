from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from language_models import write_llama

from pargo_export.errors import BackendError, CheckpointError, ConfigError, StateDictError
from pargo_export.llm import open_language_model


@pytest.fixture
def directory(llama_directory, tmp_path) -> Path:
    """Return a copy of the tiny Llama, to be tampered with."""
    return Path(shutil.copytree(llama_directory, tmp_path / "llm"))


def _edit_config(directory, **values):
    path = directory / "config.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("missing", "error", "message"),
    [
        ("config.json", ConfigError, "found no config.json .*tokenizer.json.*expected a directory that"),
        ("model.safetensors", CheckpointError, r"found no weights \(\*.safetensors, \*.bin\)"),
        ("tokenizer*", ConfigError, r"found no tokenizer \(tokenizer.json"),
    ],
)
def test_a_directory_that_is_not_complete(directory, missing, error, message):
    """What is missing is named."""
    for path in directory.glob(missing):
        path.unlink()
    with pytest.raises(error, match=message):
        open_language_model(directory)


def test_no_directory(tmp_path):
    """A directory that is not there is an error of ours, not a request to the network."""
    with pytest.raises(ConfigError, match="no such directory"):
        open_language_model(tmp_path / "lmsys" / "vicuna-7b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "abacus"}, "'abacus', which transformers .* does not know; install a version"),
        (
            {"model_type": "abacus", "auto_map": {"AutoConfig": "a.B"}},
            "Python files of its own.*--trust-remote-code",
        ),
        ({"model_type": "clip_vision_model"}, "expected a causal language model"),
        ({"model_type": None}, "found no model_type"),
    ],
)
def test_a_model_type_that_is_no_language_model(directory, values, message):
    """Unknown models, those with code of their own, and those that are none are refused before they are loaded."""
    _edit_config(directory, **values)
    with pytest.raises(ConfigError, match=message):
        open_language_model(directory)


def test_remote_code_runs_only_if_trusted(directory, tmp_path, monkeypatch):
    """Python files of a directory run with `trust_remote_code`, never without, also those of its tokenizer."""
    (directory / "abacus.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class AbacusConfig(LlamaConfig):\n    model_type = 'abacus'\n"
        "class Abacus(LlamaForCausalLM):\n    config_class = AbacusConfig\n"
    )
    names = {"AutoConfig": "abacus.AbacusConfig", "AutoModelForCausalLM": "abacus.Abacus"}
    tokenizer = directory / "tokenizer_config.json"
    values = json.loads(tokenizer.read_text()) | {"auto_map": {"AutoTokenizer": ["abacus.Tokenizer", None]}}
    tokenizer.write_text(json.dumps(values))
    open_language_model(directory).close()  # the model is a Llama, the tokenizer has a tokenizer.json
    _edit_config(directory, model_type="abacus", auto_map=names)
    with pytest.raises(ConfigError, match="--trust-remote-code"):
        open_language_model(directory)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with open_language_model(directory, trust_remote_code=True) as opened:
        assert type(opened.model).__name__ == "Abacus"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"backend": "abacus"},
            BackendError,
            "found 'abacus', expected one of auto, transformers, onnxruntime",
        ),
        ({"dtype": "int8"}, ConfigError, "found 'int8', expected one of float32, float16, bfloat16"),
        ({"threads": 0}, ConfigError, "threads: found 0"),
        ({"lora_alpha": 1.0}, ConfigError, "without adapters"),
        ({"device": "abacus"}, BackendError, "PyTorch cannot use 'abacus'"),
        ({"device": "cuda:99"}, BackendError, "PyTorch cannot use 'cuda:99'"),
    ],
)
def test_options_that_do_not_fit(llama_directory, options, error, message):
    """An option that does not fit is an error with what was expected."""
    with pytest.raises(error, match=message):
        open_language_model(llama_directory, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 3}, "9 missing: model.layers.2"),
        ({"num_hidden_layers": 1}, "9 unexpected: model.layers.1"),
        (
            {"intermediate_size": 100},
            r"6 of another shape: model.layers.0.mlp.down_proj.weight \[80, 96\], expected \[80, 100\]",
        ),
    ],
)
def test_weights_of_another_configuration(directory, values, message):
    """What transformers only warns of, weights that were made up or left out, is an error here."""
    _edit_config(directory, **values)
    with pytest.raises(StateDictError, match=message):
        open_language_model(directory)


def test_broken_weights(directory):
    """A broken file is named."""
    (directory / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=f"{directory}.*cannot load the language model"):
        open_language_model(directory)


def test_tied_embeddings_are_complete(tmp_path):
    """An output layer that shares the weights of the embeddings is not missing."""
    directory = write_llama(tmp_path, tie_word_embeddings=True, num_hidden_layers=1)
    with open_language_model(directory) as opened:
        assert opened.model.lm_head.weight is opened.model.get_input_embeddings().weight


def test_importing_needs_neither_pytorch_nor_transformers():
    """The package can be imported where neither is installed."""
    code = (
        "import sys\nclass Blocker:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'peft', 'onnxruntime', 'tokenizers'):\n"
        "            raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Blocker())\n"
        "from pargo_export.llm import Chat, open_language_model, splice"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
