"""Choices of a quantization: defaults, names and refusals."""

from __future__ import annotations

import pytest

from pargo_calibration import list_recipes, load_recipe
from pargo_export.bundle import Limits
from pargo_export.errors import ConfigError, QuantizationError
from pargo_export.quantization.options import ACCURACY_LIMITS, PRECISIONS, QuantizeOptions


@pytest.mark.parametrize(
    ("choices", "precision", "dialect", "float_precision", "name"),
    [
        ({}, "int8", "cpu", "float32", "int8-cpu"),
        ({"target": "cuda"}, "int8", "tensorrt", "float16", "int8-cuda"),
        ({"precision": "int8-weight-only"}, "int8_weight_only", "cpu", "float32", "int8-weight-only-cpu"),
        ({"precision": "fp8", "target": "thor"}, "fp8", "tensorrt", "float16", "fp8-thor"),
        ({"precision": "fp16"}, "float16", "cpu", "float16", "fp16"),
        ({"precision": "bf16", "target": "orin"}, "bfloat16", "tensorrt", "bfloat16", "bf16"),
        (
            {"target": "orin", "float_precision": "bfloat16", "name": "mine"},
            "int8",
            "tensorrt",
            "bfloat16",
            "mine",
        ),
    ],
)
def test_defaults_follow_precision_and_target(choices, precision, dialect, float_precision, name):
    """The CPU gets unsigned activations in float32, every other target symmetric ones in float16."""
    options = QuantizeOptions(**choices)
    assert options.precision == precision
    assert options.dialect == dialect
    assert options.resolved_float_precision == float_precision
    assert options.variant_name == name
    assert options.resolved_limits == ACCURACY_LIMITS[precision]
    assert options.quantizes == (precision in {"int8", "int8_weight_only", "fp8"})


def test_every_precision_has_limits():
    """No precision passes the gate without being held against something."""
    assert set(ACCURACY_LIMITS) == set(PRECISIONS.values())
    for limits in ACCURACY_LIMITS.values():
        assert any(value is not None for value in limits.model_dump().values())
    own = Limits(cosine=0.5)
    assert QuantizeOptions(limits=own).resolved_limits == own


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"precision": "int4"}, "precision is 'int4'; known: int8"),
        ({"target": "tpu"}, "target is 'tpu'; known: cpu, cuda"),
        ({"float_precision": "float64"}, "float_precision is 'float64'; known: float32"),
        ({"name": "../up"}, r"name is '\.\./up'; expected a letter or digit"),
        (
            {"precision": "fp16", "keep": ("*",)},
            "'float16' quantizes nothing, so recipe and keep mean nothing",
        ),
        ({"precision": "bf16", "recipe": "int8"}, "'bfloat16' quantizes nothing"),
    ],
)
def test_unknown_and_contradictory_choices_are_refused(choices, message):
    """The message lists what is known."""
    with pytest.raises(ConfigError, match=message):
        QuantizeOptions(**choices)


@pytest.mark.parametrize(("target", "reason"), [("cpu", "no CPU backend has FP8"), ("orin", "8.7")])
def test_fp8_is_refused_where_it_cannot_run(target, reason):
    """The message says why and what to choose."""
    with pytest.raises(QuantizationError, match=rf"{reason}.*choose --int8"):
        QuantizeOptions(precision="fp8", target=target)


@pytest.mark.parametrize("precision", ["int8", "int8-weight-only", "fp8"])
def test_default_recipe(precision):
    """Each quantizing precision has a built-in recipe of its own."""
    options = QuantizeOptions(precision=precision, target="cuda")
    assert options.load_recipe() == load_recipe(precision)
    assert options.load_recipe().precision == options.precision


def test_recipe_by_name_file_or_value(tmp_path):
    """A built-in name, a TOML file or a recipe."""
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\nsummary = "mine"\nprecision = "int8"\n')
    assert QuantizeOptions(recipe="int8-mse").load_recipe() == load_recipe("int8-mse")
    assert QuantizeOptions(recipe=str(file)).load_recipe().name == "own"
    recipe = load_recipe("int8-entropy")
    assert QuantizeOptions(recipe=recipe).load_recipe() is recipe
    assert QuantizeOptions(precision="fp16").load_recipe() is None


def test_unusable_recipes_are_refused(tmp_path):
    """Unknown, damaged, or for another precision."""
    with pytest.raises(
        QuantizationError, match=rf"'int9' is unknown; choose one of {', '.join(list_recipes())}"
    ):
        QuantizeOptions(recipe="int9").load_recipe()
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\nsummary = "mine"\nprecision = "int8"\nsmoth = 1\n')
    with pytest.raises(QuantizationError, match="smoth: unknown key"):
        QuantizeOptions(recipe=str(file)).load_recipe()
    with pytest.raises(QuantizationError, match="'fp8' is for fp8, but int8 was asked for"):
        QuantizeOptions(recipe="fp8").load_recipe()
