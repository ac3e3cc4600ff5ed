"""Configurations of every form become the same statements, and mistakes in them are named."""

from __future__ import annotations

import json

import pytest
from golden_cases import GOLDEN, golden_case

from pargo_export.checkpoint.config_file import looks_like_config, read_config
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.checkpoint.resolution import resolve_config
from pargo_export.checkpoint.statements import Statement
from pargo_export.config import ModelConfig
from pargo_export.errors import ConfigError

FULL = preset("eva02-l-336-internlm2-7b")
# The official evaluation file, with its own mixture of keys.
EVALUATION = {
    "input": "benchmarks/MME",
    "output": "output",
    "vision_model_name": "eva-clip-l-14-336",
    "vision_model": "checkpoints/EVA02_CLIP_L_336_psz14_s6B.pt",
    "llm_model": "checkpoints/internlm2-7b",
    "ckpt": "checkpoint",
    "batch_size": 1,
    "lora_target_modules": ["wqkv"],
    "lora_r": 256,
    "lora_alpha": 512,
    "image_size": 336,
    "fusion_method": "q-former",
    "bert_type": "checkpoints/bert-small-uncased",
    "cross_attention_freq": 1,
    "num_query_token": 304,
    "num_local_query_token": 288,
    "prompt_template": "USER: <Img><ImageHere></Img> {}",
    "keep_pad": False,
    "visual_tokens_adjacent": 4,
}


def resolve(config):
    """Complete a configuration without a checkpoint."""
    return resolve_config(read_config(config), {})


@pytest.mark.parametrize("name", PRESETS)
def test_all_own_forms_agree(tmp_path, name):
    """A preset, its object, its content and its file mean the same."""
    path = tmp_path / "model.json"
    path.write_text(preset(name).model_dump_json(), encoding="utf-8")
    forms = (name, preset(name), preset(name).model_dump(), PRESETS[name], path, str(path))
    assert [resolve(form) for form in forms] == [preset(name)] * len(forms)


def test_own_form_keeps_every_field():
    """Fields that no tensor shows survive."""
    values = preset("tiny").model_dump(mode="json")
    values["projector"]["partial_attention_windows"] = [1, 3, None, 5]
    values["projector"]["layer_norm_eps"] = 1e-7
    values["vision"]["rope_interpolate"] = False
    values["tile_columns"] = 2
    assert resolve(values) == ModelConfig.model_validate(values)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ("projector", "num_partial_token"),
            r"unknown field projector\.num_partial_token; did you mean projector\.num_partial",
        ),
        (("vision", "widht"), r"did you mean vision\.width"),
        (("tile_row",), "did you mean tile_rows"),
        (("vision", "zzz"), "the fields are image_size, patch_size"),
    ],
)
def test_unknown_own_field(path, message):
    """An unknown field of our own form is an error with a suggestion."""
    values = preset("tiny").model_dump()
    target = values
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = 3
    with pytest.raises(ConfigError, match=message):
        read_config(values)


def test_official_evaluation_file():
    """The official evaluation file is the full-size ParGo, although it says q-former; only the LLM width is left open."""
    statements = read_config(EVALUATION)
    with pytest.raises(
        ConfigError, match=r"do not show projector\.llm_hidden_size \(llm_hidden_size\)\. Give"
    ):
        resolve_config(statements, {})
    statements.add("projector.llm_hidden_size", 4096, "test")
    assert resolve_config(statements, {}) == FULL
    notes = " ".join(statements.notes)
    assert "'q-former' with num_local_query_token 288: read as ParGo" in notes
    assert "ckpt, input, keep_pad, llm_model, lora_alpha" in notes


def test_full_size_of_the_official_code():
    """The configuration recorded with the official key list is the full-size preset."""
    values = json.loads((GOLDEN / "official_full_keys.json").read_text("utf-8"))["config"]
    assert resolve(values) == FULL


def test_bert_type_directory(tmp_path):
    """A `bert_type` that is a directory is read, also relative to the configuration file."""
    (tmp_path / "bert-mine").mkdir()
    bert = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "bert-mine" / "config.json").write_text(
        json.dumps(bert | {"max_position_embeddings": 400, "hidden_act": "gelu"}), encoding="utf-8"
    )
    path = tmp_path / "eval.json"
    path.write_text(
        json.dumps(EVALUATION | {"bert_type": "bert-mine", "llm_hidden_size": 32}), encoding="utf-8"
    )
    projector = resolve(path).projector
    assert (projector.hidden_size, projector.num_heads, projector.max_position_embeddings) == (64, 4, 400)


@pytest.mark.parametrize(
    ("bert_type", "expected"),
    [
        ("a/bert-base-uncased/", (768, 12, 12, 3072)),
        ("bert-small-uncased", (512, 4, 8, 2048)),
    ],
)
def test_bert_types(bert_type, expected):
    """The base name of `bert_type` implies the sizes of the query layers."""
    found = resolve(EVALUATION | {"bert_type": bert_type, "llm_hidden_size": 8}).projector
    assert (found.hidden_size, found.num_layers, found.num_heads, found.intermediate_size) == expected


def test_unknown_names_are_noted():
    """An unknown tower or BERT is noted; what they would have told is then missing."""
    statements = read_config(EVALUATION | {"bert_type": "bert-x", "vision_model_name": "eva-x"})
    assert [note.split(" (")[0] for note in statements.notes[:2]] == [
        "unknown vision_model_name eva-x: the tower is described by its tensors alone",
        "unknown bert_type bert-x",
    ]
    with pytest.raises(ConfigError, match=r"num_heads \(bert_config\.num_attention_heads, or bert_type\)"):
        resolve_config(statements, {})


@pytest.mark.parametrize(
    ("method", "num_local", "kind"),
    [
        ("ParGo", 18, "pargo"),
        ("pargo", 0, "qformer"),
        ("q-former", 18, "pargo"),
        ("Q_Former", 0, "qformer"),
        ("qformer", None, "qformer"),
        ("linear", None, "linear"),
        ("MLP", None, "mlp"),
    ],
)
def test_fusion_methods(method, num_local, kind):
    """The number of partial queries tells a ParGo from a Q-Former, whatever the spelling."""
    values = golden_case("pargo_w2").values
    values |= {"fusion_method": method, "num_local_query_token": num_local, "num_global_query_token": None}
    values |= {
        "tokens_per_partial_query": None,
        "bert_config": values["bert_config"] | {"local_query_length": None},
    }
    if kind in ("linear", "mlp"):
        values |= {"num_query_token": None, "bert_config": None}
    assert resolve(values).projector.kind == kind


def test_pargo_without_partial_count_is_incomplete():
    """A ParGo that does not say how many queries are partial is not guessed."""
    values = golden_case("pargo_w2").values
    for key in ("num_local_query_token", "num_global_query_token", "tokens_per_partial_query"):
        del values[key]
    del values["bert_config"]["local_query_length"]
    with pytest.raises(ConfigError, match=r"projector\.num_partial_tokens \(num_local_query_token\)"):
        resolve(values)


def test_partial_attention_windows():
    """Cascaded windows can be given beside official keys."""
    values = golden_case("pargo_w2").values | {"partial_attention_windows": [1, 3, 5, None]}
    assert resolve(values).projector.partial_attention_windows == (1, 3, 5, None)
    with pytest.raises(ConfigError, match="3 entries for 4 layers"):
        resolve(values | {"partial_attention_windows": [1, 3, 5]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion_method": "perceiver"}, "unknown fusion_method 'perceiver'; expected ParGo"),
        ({"crop_size": 70}, "crop_size 70, but create_eva_vit.img_size 84"),
        ({"num_query_token": 23}, "num_query_token 23, but bert_config.query_length 22"),
        ({"num_global_query_token": 5}, "num_query_token 22, but its other fields make it 23"),
        ({"image_tokens": 37}, "image_tokens 37, but its other fields make it 36"),
        ({"tokens_per_partial_query": 3}, "tokens_per_partial_query 3, but its other fields make it 2"),
        ({"num_local_query_tokens": 18}, "did you mean num_local_query_token"),
        ({"bert_config": 3}, "bert_config is a int, expected an object"),
        ({"num_global_query_token": "4"}, "num_global_query_token 4: expected an integer"),
    ],
)
def test_contradictions_within_a_file(change, message):
    """A file that contradicts itself or misspells a key is refused with both sides."""
    values = golden_case("pargo_w2").values
    for key in change:
        if key == "num_local_query_tokens":
            del values["num_local_query_token"]
    with pytest.raises(ConfigError, match=message):
        resolve(values | change)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("create_eva_vit", "postnorm", True),
        ("create_eva_vit", "rope", False),
        ("create_eva_vit", "init_values", 0.1),
        ("bert_config", "hidden_act", "gelu_new"),
        ("bert_config", "position_embedding_type", "relative_key"),
    ],
)
def test_other_architectures(section, key, value):
    """A switch that changes the arithmetic is refused, not ignored."""
    values = golden_case("pargo_w2").values
    values[section][key] = value
    with pytest.raises(ConfigError, match=rf"{section}\.{key} is .* is another architecture"):
        read_config(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "found a list"),
        ('{"vision": 3, "projector": {}}', "vision is a int"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    """A file that is no configuration says why."""
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_config(path)


@pytest.mark.parametrize("facts", [{}, {"projector.family": (Statement("queries", "a tensor"),)}])
def test_unknown_kind(facts):
    """A kind that is none of the four is refused with the choices."""
    values = preset("tiny").model_dump()
    values["projector"]["kind"] = "perceiver"
    with pytest.raises(
        ConfigError, match=r"projector\.kind: Input should be 'pargo', 'qformer', 'linear' or 'mlp'"
    ):
        resolve_config(read_config(values), facts)


def test_unknown_name():
    """A name that is neither file nor preset lists the presets."""
    with pytest.raises(ConfigError, match="no preset; the presets are eva02-l-336-internlm2-7b, tiny"):
        read_config("tinny")
    with pytest.raises(ConfigError, match="unknown preset 'tinny'"):
        preset("tinny")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"fusion_method": "ParGo"}', True),
        ('{"projector": {}}', True),
        ('{"architectures": []}', False),
        ("[]", False),
        ("", False),
    ],
)
def test_neighbours_that_are_configurations(tmp_path, content, expected):
    """A language model's config.json beside a checkpoint is not mistaken for ours."""
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    assert looks_like_config(path) is expected
