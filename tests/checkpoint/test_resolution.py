"""Shapes complete a configuration, and contradict a wrong one."""

from __future__ import annotations

import pytest
import torch
from checkpoint_samples import golden_tensors
from golden_cases import CASES, golden_case

from pargo_export.checkpoint.config_file import read_config
from pargo_export.checkpoint.contents import sort_tensors
from pargo_export.checkpoint.inference import _WITNESSES, infer_facts
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.checkpoint.resolution import resolve_config
from pargo_export.checkpoint.source import TensorSource
from pargo_export.checkpoint.statements import Statements
from pargo_export.checkpoint.torch_files import stored_tensor
from pargo_export.errors import ConfigError
from pargo_export.model.frontend import VisualFrontEnd


def facts_of(tensors):
    """Infer facts from tensors in memory."""
    contents = sort_tensors(
        TensorSource((), {key: stored_tensor(key, value) for key, value in tensors.items()})
    )
    table = next((tensor for kind, tensor in contents.buffers.values() if kind == "rotary_cosines"), None)
    return infer_facts(contents.weights, table)


@pytest.mark.parametrize("name", CASES)
def test_shapes_agree_with_the_configuration(name):
    """Every field that shapes show has the value of the golden configuration."""
    config = resolve_config(read_config(golden_case(name).config), {})
    facts = facts_of(golden_tensors(name))
    for field, statements in facts.items():
        section, _, attribute = field.partition(".")
        if field != "projector.family":
            expected = getattr(getattr(config, section), attribute)
            assert {statement.value for statement in statements} == {expected}, field
    num_expected = {"linear": 12, "mlp": 12}.get(name, 17)
    assert len(facts) == num_expected


def test_witnesses_are_tensors_of_the_model():
    """Every tensor that is asked for a field exists in a model of some kind, with that axis."""
    shapes = {}
    for name in PRESETS:
        with torch.device("meta"):
            shapes |= {key: value.shape for key, value in VisualFrontEnd(preset(name)).state_dict().items()}
    assert all(axis < len(shapes[tensor]) for _, tensor, axis in _WITNESSES)


@pytest.mark.parametrize("name", CASES)
def test_little_is_needed_beside_the_shapes(name):
    """Partial count and heads complete what the shapes show; linear and MLP projectors need nothing."""
    expected = resolve_config(read_config(golden_case(name).config), {})
    statements = Statements("given")
    if expected.projector.has_queries:
        statements.add("projector.num_partial_tokens", expected.projector.num_partial_tokens, "test")
        statements.add("projector.num_heads", expected.projector.num_heads, "test")
    assert resolve_config(statements, facts_of(golden_tensors(name))) == expected


def test_missing_fields_are_listed_exactly():
    """Only what shapes cannot show is asked for, with the official spelling and the ways to give it."""
    with pytest.raises(
        ConfigError,
        match=r"do not show projector\.num_partial_tokens \(num_local_query_token\), projector\.num_global_tokens "
        r"\(num_global_query_token\), projector\.num_heads \(.*\)\. Give them in a JSON file .* preset .* beside",
    ):
        resolve_config(Statements("nothing"), facts_of(golden_tensors("pargo_w2")))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("num_query_token",),
            300,
            r"num_query_token 300, checkpoint tensor query_tokens has shape \[1, 22, 48\]",
        ),
        (("llm_hidden_size",), 96, r"llm_hidden_size 96, checkpoint tensor llm_proj.bias has shape \[80\]"),
        (
            ("cross_attention_freq",),
            2,
            r"cross_attention_freq 2, the checkpoint has cross-attention in layers \[0, 1, 2, 3\]",
        ),
        (
            ("create_eva_vit", "head_width"),
            32,
            r"head_width 32, checkpoint tensor visual_encoder.* has shape \[36, 16\]",
        ),
        (
            ("create_eva_vit", "layers"),
            4,
            r"layers 4, checkpoint tensor visual_encoder\.blocks\.2.* the last of 3 layers",
        ),
        (
            ("create_eva_vit", "patch_size"),
            7,
            r"patch_size 7, checkpoint tensor visual_encoder.patch_embed.proj.weight",
        ),
        (
            ("create_eva_vit", "width"),
            32,
            r"width 32, checkpoint tensor visual_encoder.pos_embed has shape \[1, 37, 64\]",
        ),
        (("create_eva_vit", "embed_dim"), 32, "embed_dim 32, checkpoint tensor visual_encoder.head"),
        (("create_eva_vit", "img_size"), 112, "img_size 112, checkpoint tensor visual_encoder.pos_embed"),
        (("bert_config", "hidden_size"), 64, "hidden_size 64, checkpoint tensor query_tokens"),
        (
            ("bert_config", "num_hidden_layers"),
            5,
            "num_hidden_layers 5, checkpoint tensor .* the last of 4 layers",
        ),
        (("bert_config", "intermediate_size"), 97, "intermediate_size 97, checkpoint tensor ParGo"),
        (
            ("bert_config", "max_position_embeddings"),
            65,
            "max_position_embeddings 65, checkpoint tensor ParGo",
        ),
        (("fusion_method",), "linear", "fusion_method linear, checkpoint tensor query_tokens"),
    ],
)
def test_contradictions_name_both_sides(path, value, message):
    """A wrong field is refused with what the configuration says and what the checkpoint shows."""
    values = golden_case("pargo_w2").values
    for key in (
        "crop_size",
        "image_size",
        "num_query_token",
        "cross_attention_freq",
        "vision_derived",
        "ln_vision",
    ):
        values.pop(key)
    for key in ("query_length", "cross_attention_freq", "encoder_width"):
        values["bert_config"].pop(key)
    values["create_eva_vit"].pop("mlp_ratio")
    target = values
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        resolve_config(read_config(values), facts_of(golden_tensors("pargo_w2")))


def test_all_contradictions_in_one_error():
    """Several wrong fields are listed together."""
    values = golden_case("linear").values | {"llm_hidden_size": 65, "visual_tokens_adjacent": 2}
    with pytest.raises(
        ConfigError,
        match=r"llm_hidden_size 65, .*; .*visual_tokens_adjacent 2, checkpoint tensor llm_proj.weight",
    ):
        resolve_config(read_config(values), facts_of(golden_tensors("linear")))


def test_own_form_names_its_own_fields():
    """A contradiction with our own form speaks of our fields."""
    values = resolve_config(read_config(golden_case("pargo_w2").config), {}).model_dump()
    values["projector"] |= {"num_partial_tokens": 9}
    message = (
        r"projector.num_partial_tokens 9 \+ projector.num_global_tokens 4, checkpoint tensor query_tokens"
    )
    with pytest.raises(ConfigError, match=message):
        resolve_config(read_config(values), facts_of(golden_tensors("pargo_w2")))


@pytest.mark.parametrize(("layers", "freq"), [((0, 2), 2), ((0, 3), 3), ((0,), 4), ((0, 1, 2, 3), 1)])
def test_cross_attention_frequency(layers, freq):
    """The layers with cross-attention show the frequency; a larger one than that may be stated if only layer 0 has it."""
    tensors = {
        key: value
        for key, value in golden_tensors("pargo_w2").items()
        if "crossattention" not in key or int(key.split(".")[4]) in layers
    }
    facts = facts_of(tensors)
    assert facts["projector.cross_attention_freq"][0].value == freq
    statements = Statements("given")
    statements.add("projector.cross_attention_freq", 7, "freq 7")
    statements.add("projector.num_partial_tokens", 18, "18")
    statements.add("projector.num_heads", 4, "4")
    if freq == 4:
        assert resolve_config(statements, facts).projector.cross_attention_freq == 7
    else:
        with pytest.raises(ConfigError, match="freq 7, the checkpoint has cross-attention"):
            resolve_config(statements, facts)


def test_irregular_cross_attention():
    """Layers that no frequency gives are refused."""
    tensors = {
        key: value for key, value in golden_tensors("pargo_w2").items() if "layer.1.crossattention" not in key
    }
    with pytest.raises(ConfigError, match=r"cross-attention in layers \[0, 2, 3\] of 4"):
        resolve_config(read_config(golden_case("pargo_w2").config), facts_of(tensors))


def test_one_misshapen_tensor_is_no_contradiction():
    """Where tensors disagree with each other, the configuration is not blamed."""
    tensors = golden_tensors("pargo_w2") | {"llm_proj.bias": torch.zeros(79)}
    assert (
        resolve_config(
            read_config(golden_case("pargo_w2").config), facts_of(tensors)
        ).projector.llm_hidden_size
        == 80
    )


def test_two_tiles_of_an_evaluation():
    """Tiles come from the configuration, since no weight depends on them."""
    values = golden_case("pargo_w2").values | {"image_size": [84, 168], "num_crops": 2, "image_tokens": 72}
    values["tokens_per_partial_query"] = 4
    config = resolve_config(read_config(values), facts_of(golden_tensors("pargo_w2")))
    assert (config.tile_rows, config.tile_columns, config.window_size) == (1, 2, 4)
