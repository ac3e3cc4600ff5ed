"""From a float graph, a recipe and statistics to a graph: what is written, and where."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from pargo_calibration import AttentionRule, load_recipe
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.graph import save
from pargo_export.quantization.build import GraphBuilder
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.statistics import unpack

SELF = load_recipe("int8").model_copy(update={"attention": AttentionRule(projector_self=True)})


@pytest.fixture
def builder(calibrated_bundle):
    """Return a function that makes a builder of INT8 graphs, with some fields changed."""

    def make(**changes):
        values = {
            "base": calibrated_bundle / "onnx/fp32.onnx",
            "recipe": load_recipe("int8"),
            "observation": unpack(calibrated_bundle / "calibration/default.statistics.safetensors"),
            "dialect": "cpu",
            "float_precision": "float32",
            "metadata": {"pargo.note": "test"},
        }
        return GraphBuilder(**(values | changes))

    return make


def test_large_weights_lie_beside_the_graph(builder, tmp_path, monkeypatch):
    """They are listed among the files, and ONNX Runtime's checker reads them there."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 0)
    (tmp_path / "onnx").mkdir()
    built = builder().build(tmp_path / "onnx/int8.onnx")
    assert sorted(path.name for path in built.files) == ["int8.onnx", "int8.onnx.data"]
    assert sorted((tmp_path / "onnx").iterdir()) == sorted(built.files)
    onnx.checker.check_model(built.path, full_check=True)
    assert {item.key: item.value for item in onnx.load(built.path).metadata_props}["pargo.note"] == "test"


def test_the_base_is_not_changed(builder, tmp_path):
    """Neither the file nor what a second build makes of it."""
    one = builder()
    before = one.base.read_bytes()
    first, second = (one.build(tmp_path / f"{index}.onnx").path.read_bytes() for index in range(2))
    assert first == second
    assert one.base.read_bytes() == before


def test_without_smoothing_the_norms_stay(builder):
    """A recipe of exponent 0 leaves gains and offsets as they are."""
    weights = {}
    for recipe in ("int8", "int8-no-smooth"):
        model, facts = builder(recipe=load_recipe(recipe)).make()
        assert bool(facts.smoothed) == bool(facts.factors) == (recipe == "int8")
        weights[recipe] = {
            name: value.const_value.numpy()
            for name, value in model.graph.initializers.items()
            if "norm" in name
        }
    base = ir.load(builder().base).graph.initializers
    assert set(weights["int8"]) >= {name for name in base if "norm" in name}
    changed = {
        recipe: {
            name
            for name, value in base.items()
            if "norm" in name and not np.array_equal(found[name], value.const_value.numpy())
        }
        for recipe, found in weights.items()
    }
    assert changed["int8-no-smooth"] == set()
    assert len(changed["int8"]) > 14


def test_kept_readers_of_a_smoothed_activation_stay_right(builder, calibrated_bundle):
    """If all readers of an activation are kept in float, its norm is not smoothed either."""
    linears = find_linears(ir.load(calibrated_bundle / "onnx/fp32.onnx"))
    kept = {linear.path: "test" for linear in linears if linear.block == "tower.blocks.1"}
    _, facts = builder().make(kept)
    assert facts.kept == {**kept, "tower.patch_embedding": facts.kept["tower.patch_embedding"]}
    assert not any(path.startswith("tower.blocks.1.") for path in facts.smoothed)
    assert len(facts.smoothed) == 10


def test_nothing_left_is_refused(builder):
    """The message collects the reasons."""
    one = builder()
    kept = {linear.path: "chosen" for linear in find_linears(ir.load(one.base))}
    with pytest.raises(QuantizationError, match=r"no linear is left to quantize \(chosen\)"):
        one.make(kept)


def test_without_a_recipe_only_the_precision_changes(builder):
    """No Q or DQ, every linear in half."""
    model, facts = builder(recipe=None, observation=None, float_precision="float16").make()
    assert (facts.quantized, facts.kept, facts.float_precision) == ((), {}, "float16")
    assert not any("Quantize" in node.op_type for node in model.graph)
    assert {linear.weight.dtype for linear in find_linears(model)} == {ir.DataType.FLOAT16}


def test_self_attention_needs_the_fused_form(builder, calibrated_bundle):
    """In the other forms there is no node to write out; the message says what to do."""
    recipe = SELF.model_copy(update={"keep": ()})  # a projector has no patch embedding to keep
    one = builder(base=calibrated_bundle / "onnx/external.onnx", recipe=recipe)
    with pytest.raises(
        QuantizationError, match="has no pargo::BlockDiagonalAttention node; export it with attention 'f"
    ):
        one.make()


def test_self_attention_needs_its_ranges(builder):
    """A calibration of a graph without the fused nodes did not see queries, keys and values."""
    one = builder(recipe=SELF)
    activations = {name: item for name, item in one.observation.activations.items() if "/" not in name}
    observation = dataclasses.replace(one.observation, activations=activations)
    with pytest.raises(CalibrationError, match="did not see the inputs of the projector's self-attention"):
        builder(recipe=SELF, observation=observation).make()


def test_self_attention_ranges(builder):
    """Attention weights are taken to lie in [0, 1]; queries, keys and values have what was seen."""
    model, _ = builder(recipe=SELF).make()
    constants = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    scales = {}
    for node in model.graph:
        if node.op_type == "MatMul" and "self_attention" in node.name and node.inputs[1].producer():
            for value in node.inputs:
                restored = value.producer()
                if restored.op_type == "DequantizeLinear" and restored.inputs[0].producer():
                    scales[value.name] = (
                        constants[restored.inputs[1].name],
                        constants[restored.inputs[2].name],
                    )
    softmax = [item for name, item in scales.items() if np.isclose(item[0], 1 / 255, rtol=1e-6)]
    assert len(softmax) >= 3
    assert {int(zero) for _, zero in softmax} == {0}
    assert len(scales) >= 12
