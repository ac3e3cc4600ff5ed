"""What can be asked for, and what contradicts itself."""

from __future__ import annotations

import dataclasses

import pytest

from pargo_export.errors import ConfigError
from pargo_export.graph.options import ExportOptions
from pargo_export.rewrite.registry import TARGETS


def test_defaults():
    """A verified float32 graph of the whole model for the CPU."""
    options = ExportOptions()
    assert options.precision == "float32"
    assert options.attention_form == "fused"
    assert options.resolved_opset == 20
    assert options.variant_name == "fp32"
    assert options.max_batch == 8


@pytest.mark.parametrize(
    ("word", "precision"),
    [
        ("fp32", "float32"),
        ("fp16", "float16"),
        ("bf16", "bfloat16"),
        ("float32", "float32"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
    ],
)
def test_words_of_the_command_line_name_precisions(word, precision):
    """Short words and long names mean the same."""
    assert ExportOptions(precision=word).precision == precision


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "int8"),
        ("precision", "FP16"),
        ("target", "nano"),
        ("attention", "flash"),
        ("component", "tower"),
        ("input_kind", "bytes"),
        ("preprocess", "crop"),
    ],
)
def test_unknown_words_are_refused(field, value):
    """The message names the field, the word and all words that are known."""
    with pytest.raises(ConfigError, match=rf"{field} is '{value}'; known: ") as info:
        ExportOptions(**{field: value})
    assert str(getattr(ExportOptions(), field)) in str(info.value)


@pytest.mark.parametrize("max_batch", [0, -3])
def test_a_batch_has_at_least_one_image(max_batch):
    """Zero and less are refused."""
    with pytest.raises(ConfigError, match=f"max_batch is {max_batch}; it must be at least 1"):
        ExportOptions(max_batch=max_batch)


def test_a_projector_takes_no_pixels():
    """`uint8` is about pixels, and the projector takes image features."""
    with pytest.raises(ConfigError, match="'projector' takes image features, so input_kind 'uint8'"):
        ExportOptions(component="projector", input_kind="uint8")
    ExportOptions(component="encoder", input_kind="uint8")


@pytest.mark.parametrize("opset", [18, 20, 22])
def test_the_operator_attention_needs_its_opset(opset):
    """`Attention` is there from opset 23."""
    with pytest.raises(ConfigError, match=f"'attention_op' needs opset 23, found {opset}"):
        ExportOptions(attention="attention_op", opset=opset)


@pytest.mark.parametrize("opset", [18, 21])
def test_bfloat16_needs_its_opset(opset):
    """`Conv` takes bfloat16 from opset 22."""
    with pytest.raises(ConfigError, match=f"'bfloat16' needs opset 22, found {opset}"):
        ExportOptions(precision="bf16", opset=opset)


@pytest.mark.parametrize("opset", [0, 17, 24])
def test_other_opsets_are_refused(opset):
    """Below 18 and above 23 nothing has been tried."""
    with pytest.raises(ConfigError, match=f"opset is {opset}; supported: 18 to 23"):
        ExportOptions(opset=opset)


@pytest.mark.parametrize(
    ("choices", "opset"),
    [
        ({}, 20),
        ({"precision": "fp16"}, 20),
        ({"precision": "bf16"}, 22),
        ({"attention": "attention_op"}, 23),
        ({"attention": "attention_op", "precision": "bf16"}, 23),
        ({"opset": 18}, 18),
        ({"opset": 23}, 23),
        ({"opset": 22, "precision": "bf16"}, 22),
    ],
)
def test_the_opset_is_the_lowest_that_serves(choices, opset):
    """Form and precision may ask for a later one; what was asked for is kept."""
    assert ExportOptions(**choices).resolved_opset == opset


@pytest.mark.parametrize("target", TARGETS)
def test_auto_asks_the_target(target):
    """Orin gets the inlined form, everyone else function nodes; an explicit form is kept."""
    form = "structured" if target == "orin" else "fused"
    assert ExportOptions(target=target).attention_form == form
    assert ExportOptions(target=target, attention="dense").attention_form == "dense"


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"precision": "fp16"}, "fp16"),
        ({"precision": "bf16", "component": "encoder"}, "bf16-encoder"),
        ({"component": "projector"}, "fp32-projector"),
        ({"precision": "fp16", "input_kind": "uint8"}, "fp16-uint8"),
        ({"component": "encoder", "input_kind": "uint8"}, "fp32-encoder-uint8"),
        ({"precision": "fp16", "name": "mine"}, "mine"),
    ],
)
def test_variant_names(choices, name):
    """Precision, then what is unusual; a given name wins."""
    assert ExportOptions(**choices).variant_name == name


def test_recipe_holds_resolved_values():
    """What is written out and what is the default give the same recipe, other choices another."""
    explicit = ExportOptions(precision="float32", attention="fused", opset=20)
    assert explicit.recipe() == ExportOptions().recipe()
    recipes = [
        ExportOptions(**choices).recipe()
        for choices in (
            {},
            {"precision": "fp16"},
            {"target": "cuda"},
            {"attention": "dense"},
            {"component": "encoder"},
            {"input_kind": "uint8"},
            {"preprocess": "resize"},
            {"max_batch": 1},
            {"opset": 21},
            {"rewrites": ("merge-qkv",)},
            {"without_rewrites": ("merge-qkv",)},
            {"name": "mine"},
        )
    ]
    assert all(recipes.count(recipe) == 1 for recipe in recipes)


def test_options_cannot_be_changed():
    """They are a value; `dataclasses.replace` checks again."""
    options = ExportOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.opset = 23
    with pytest.raises(ConfigError):
        dataclasses.replace(options, opset=99)


@pytest.mark.parametrize("name", ["", "../fp32", "a b", "-x", "fp32\n"])
def test_a_name_that_is_no_file_name_is_refused_before_any_work(name):
    """The name becomes a file name and a key of the manifest."""
    with pytest.raises(ConfigError, match=r"^name is .*; expected a letter or digit"):
        ExportOptions(name=name)
