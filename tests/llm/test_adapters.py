"""Language models of ParGo checkpoints against goldens of a plain implementation, in every form that they are stored in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_samples import save_index, save_torch
from golden_cases import GOLDEN
from safetensors.torch import load_file, save_file
from torch import nn

from pargo_export.errors import CheckpointError, ConfigError, StateDictError, UnsafeCheckpointError
from pargo_export.llm.stored import read_stored_language_model
from pargo_export.llm.transformers_loading import load_language_model

CASES = ("internlm2", "llama")
FOLDER = GOLDEN / "llm"
PREFIX = "llm_model.base_model.model."
LOGITS = 5e-5  # float32 sums in another order, logits up to 10 (measured 1.5e-5; without adapters 9)


def error_of(model: nn.Module, name: str) -> float:
    """Return the largest difference of the logits from the golden ones, padding left out."""
    io = load_file(FOLDER / f"{name}.io.safetensors")
    mask = io["attention_mask"]
    with torch.inference_mode():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(inputs_embeds=io["embeddings"], attention_mask=mask, position_ids=positions).logits
    return float((logits - io["logits"])[mask.bool()].abs().max())


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """Return the checkpoint of a case."""
    return load_file(FOLDER / f"{name}.safetensors")


def adapters_of(name: str) -> dict[str, torch.Tensor]:
    """Return the adapters alone."""
    return {key: tensor for key, tensor in tensors_of(name).items() if ".lora_" in key}


@pytest.fixture(params=CASES)
def name(request) -> str:
    """Each case in turn."""
    return request.param


@pytest.fixture
def directory(name, tmp_path) -> Path:
    """Return a directory with the weights of the language model before training, as published."""
    path = Path(shutil.copytree(FOLDER / name, tmp_path / "llm"))
    weights = {
        key.removeprefix(PREFIX).replace(".base_layer", ""): tensor
        for key, tensor in tensors_of(name).items()
        if ".lora_" not in key
    }
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.mark.parametrize("merge", [True, False])
def test_a_whole_language_model_in_the_checkpoint(name, merge):
    """Weights and adapters of the checkpoint, alpha of its JSON: the golden logits, merged or not."""
    model = load_language_model(FOLDER / name, adapters=FOLDER / f"{name}.safetensors", merge_adapters=merge)
    assert error_of(model, name) < LOGITS
    assert any("lora" in key for key in model.state_dict()) is not merge


def test_adapters_alone(name, directory, tmp_path):
    """Without weights in the checkpoint those of the directory are taken; without adapters the logits are far off."""
    save_file(adapters_of(name), tmp_path / "adapters.safetensors")
    model = load_language_model(directory, adapters=tmp_path / "adapters.safetensors", lora_alpha=6)
    assert error_of(model, name) < LOGITS
    assert error_of(load_language_model(directory), name) > 1


def _older(tensors):
    return {key.replace(".base_layer", ""): tensor for key, tensor in tensors.items()}


def _of_peft(tensors):
    return {key.removeprefix("llm_model."): tensor for key, tensor in tensors.items()}


def _wrapped(tensors):
    return {f"module.{key}": tensor for key, tensor in tensors.items()}


def _of_minigpt(tensors):
    return {"model": {key.replace("llm", "llama"): tensor for key, tensor in tensors.items()}}


def _with_others(tensors):
    others = ("ln_vision.weight", f"{PREFIX}model.layers.0.self_attn.rotary_emb.inv_freq")
    return tensors | {key: torch.ones(4) for key in others}


@pytest.mark.parametrize("change", [_older, _of_peft, _wrapped, _of_minigpt, _with_others])
def test_spellings(name, change, tmp_path):
    """Keys of older peft, of peft alone, of DeepSpeed and of MiniGPT mean the same; other parts are not looked at."""
    path = save_torch(tmp_path / "checkpoint.pt", change(tensors_of(name)))
    assert error_of(load_language_model(FOLDER / name, adapters=path, lora_alpha=6), name) < LOGITS


def test_shards(name, tmp_path):
    """A checkpoint in shards is one checkpoint; its alpha may stand in adapter_config.json."""
    index = save_index(tmp_path, tensors_of(name))
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 6}')
    assert error_of(load_language_model(FOLDER / name, adapters=index), name) < LOGITS


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    """A checkpoint that would call a function is refused."""
    path = save_torch(tmp_path / "checkpoint.pt", {"llm_model.x": torch.ones(1), "call": Path})
    with pytest.raises(UnsafeCheckpointError, match="refused"):
        load_language_model(FOLDER / "llama", adapters=path, lora_alpha=6)


def test_the_merged_weight_is_that_of_the_paper(tmp_path):
    """A merged weight has grown by alpha / r * B A, whatever the alpha, and the others are as they were."""
    path = tmp_path / "checkpoint.safetensors"
    save_file(tensors_of("llama"), path)
    before, after = (
        load_language_model(FOLDER / "llama", adapters=path, lora_alpha=alpha).state_dict()
        for alpha in (1e-30, 3)
    )
    down, up = (
        tensors_of("llama")[f"{PREFIX}model.layers.1.self_attn.v_proj.lora_{side}.default.weight"].float()
        for side in "AB"
    )
    grown = after["model.layers.1.self_attn.v_proj.weight"] - before["model.layers.1.self_attn.v_proj.weight"]
    torch.testing.assert_close(grown, 3 / 4 * up @ down, atol=1e-6, rtol=0)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in (0, 1) for p in "qv"]


def test_ranks_may_differ(tmp_path, directory, name):
    """An adapter that is padded with zeros to a higher rank, alpha alike, counts with its own rank."""
    tensors = adapters_of(name)
    module = next(key for key in tensors if ".lora_A" in key).partition(".lora_")[0]
    down, up = f"{module}.lora_A.default.weight", f"{module}.lora_B.default.weight"
    # Twice the rank halves the scale, which twice the factor makes up for.
    tensors[down] = torch.cat((2 * tensors[down], torch.zeros_like(tensors[down])))
    tensors[up] = torch.cat((tensors[up], torch.ones_like(tensors[up])), dim=1)
    save_file(tensors, tmp_path / "adapters.safetensors")
    model = load_language_model(directory, adapters=tmp_path / "adapters.safetensors", lora_alpha=6)
    assert error_of(model, name) < LOGITS


def test_half_precision(name):
    """Adapters are merged into halves too: the logits are those of the halved model."""
    model = load_language_model(FOLDER / name, adapters=FOLDER / f"{name}.safetensors", dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert LOGITS < error_of(model.float(), name) < 1


def _without(suffix):
    def change(tensors):
        key = next(key for key in tensors if key.endswith(suffix))
        return {other: tensor for other, tensor in tensors.items() if other != key}

    return change


def _add(name, *shape):
    return lambda tensors: tensors | {PREFIX + name: torch.ones(*shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("model.norm.weight"), "1 missing: model.norm.weight"),
        (_without("wqkv.base_layer.weight"), "3 missing: model.layers.0.self_attn.k_proj.weight"),
        (
            _without("lora_B.default.weight"),
            r"1 adapters have only one of lora_A and lora_B: model.layers.0.attention.wqkv",
        ),
        (
            _add("model.layers.0.attention.extra.weight", 2),
            "1 tensors are none of an InternLM2 model: model.layers.0.attention.extra",
        ),
        (
            _add("model.layers.2.ffn_norm.weight", 32),
            "1 unexpected: model.layers.2.post_attention_layernorm.weight",
        ),
        (_add("model.norm.weight", 31), r"model.norm.weight \[31\], expected \[32\]"),
        (
            _add("model.layers.0.attention.wqkv.base_layer.weight", 60, 32),
            "found 60 rows, expected 64: 4 query heads",
        ),
        (_add("model.layers.0.attention.wqkv.weight", 64, 32), "both mean the same tensor"),
        (
            _add("model.layers.0.attention.wqkv.lora_magnitude_vector.default.weight", 64),
            "unknown kind.*no DoRA",
        ),
        (
            _add("model.layers.0.attention.wqkv.lora_A.second.weight", 4, 32),
            r"several adapters \(default, second\)",
        ),
        (
            _add("model.layers.0.attention.wqkv.lora_A.default.weight", 4, 31),
            r"found lora_A \[4, 31\] and lora_B \[32, 4\]",
        ),
        (
            _add("model.layers.0.attention.wqkv.lora_A.default.weight", 5, 32),
            r"found lora_A \[5, 32\] and lora_B \[32, 4\]",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, message, tmp_path):
    """Every tensor that is missing, unexpected, misshapen or of another kind is an error with its name."""
    path = tmp_path / "checkpoint.safetensors"
    save_file(change(tensors_of("internlm2")), path)
    with pytest.raises(StateDictError, match=message):
        load_language_model(FOLDER / "internlm2", adapters=path, lora_alpha=6)


def test_adapters_of_another_model(tmp_path, name, directory):
    """Adapters whose linear is not in the model are named."""
    tensors = {key.replace("layers.1.", "layers.7."): tensor for key, tensor in adapters_of(name).items()}
    save_file(tensors, tmp_path / "adapters.safetensors")
    with pytest.raises(StateDictError, match=r"adapters do not fit .*layers\.7\..*the model has no linear"):
        load_language_model(directory, adapters=tmp_path / "adapters.safetensors", lora_alpha=6)


def test_weights_that_are_not_finite_or_no_floats(tmp_path):
    """NaN and integers are refused by name."""
    path = tmp_path / "checkpoint.safetensors"
    for tensor, message in (
        (torch.full((32,), torch.nan), "not finite"),
        (torch.ones(32).int(), "not supported"),
    ):
        save_file(tensors_of("llama") | {PREFIX + "model.norm.weight": tensor}, path)
        with pytest.raises(StateDictError, match=rf"{message}.*model\.norm\.weight"):
            load_language_model(FOLDER / "llama", adapters=path, lora_alpha=6)


def test_a_checkpoint_without_a_language_model(tmp_path):
    """It is said what was looked for."""
    save_file({"ln_vision.weight": torch.ones(4)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(
        CheckpointError, match=r"no tensors of a language model among 1, expected keys llm_model\.\*"
    ):
        read_stored_language_model(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no JSON beside it says lora_alpha.*512 for rank 256"),
        ({"lora_r": 8, "lora_alpha": 6}, r"says rank 8, but the adapters of adapters.safetensors have \[4\]"),
        ({"lora_alpha": 6, "use_rslora": True}, "expected plain LoRA"),
        ({"lora_alpha": -1.0}, "lora_alpha: found -1.0, expected more than 0"),
    ],
)
def test_alpha(values, message, tmp_path):
    """Alpha is never guessed, and a JSON of other adapters is not believed."""
    save_file(tensors_of("llama"), tmp_path / "adapters.safetensors")
    if values is not None:
        (tmp_path / "adapters.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        load_language_model(FOLDER / "llama", adapters=tmp_path / "adapters.safetensors")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"num_hidden_layers": None}, "num_hidden_layers missing"),
    ],
)
def test_another_internlm2(values, message, tmp_path):
    """A configuration that is not that of the published model is refused."""
    content = json.loads((FOLDER / "internlm2" / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        load_language_model(tmp_path)


def test_internlm2_with_biases(tmp_path):
    """`bias` of InternLM2 is that of the attention projections; it is split as the weights are."""
    values = json.loads((FOLDER / "internlm2" / "config.json").read_text()) | {"bias": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    tensors = _older(tensors_of("internlm2"))
    for layer in range(2):
        attention = f"{PREFIX}model.layers.{layer}.attention."
        tensors |= {attention + "wqkv.bias": torch.arange(64.0), attention + "wo.bias": torch.zeros(32)}
    save_file(tensors, tmp_path / "checkpoint.safetensors")
    attention = (
        load_language_model(tmp_path, adapters=tmp_path / "checkpoint.safetensors", lora_alpha=6)
        .model.layers[1]
        .self_attn
    )
    # Heads of 8: for each of two key heads two queries, the key, the value.
    assert attention.q_proj.bias.tolist() == [*range(16), *range(32, 48)]
    assert attention.k_proj.bias.tolist() == [*range(16, 24), *range(48, 56)]
    assert attention.v_proj.bias.tolist() == [*range(24, 32), *range(56, 64)]
