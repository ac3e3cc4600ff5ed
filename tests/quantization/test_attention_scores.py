"""The product of queries and keys in the tower, quantized for CPUs where recipe and calibration allow it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from shared_exports import export_once

from pargo_calibration import AttentionRule, load_recipe
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.attention_scores import find_score_products
from pargo_export.quantization.build import GraphBuilder
from pargo_export.quantization.statistics import unpack

PATHS = [f"tower.blocks.{index}.attention.core" for index in range(3)]


def recipe(tower_scores="where_possible", **changes):
    """The built-in recipe with another wish for the tower's scores."""
    return load_recipe("int8").model_copy(
        update={"attention": AttentionRule(tower_scores=tower_scores), **changes}
    )


@pytest.fixture
def builder(calibrated_bundle):
    """Return a function that makes a builder for CPUs, with some fields changed."""

    def make(**changes):
        values = {
            "base": calibrated_bundle / "onnx/fp32.onnx",
            "recipe": recipe(),
            "observation": unpack(calibrated_bundle / "calibration/default.statistics.safetensors"),
            "dialect": "cpu",
            "float_precision": "float32",
            "metadata": {},
        }
        return GraphBuilder(**(values | changes))

    return make


def without_scores(observation):
    """What a calibration of an earlier version saw: no queries and keys of the tower."""
    activations = {
        name: item for name, item in observation.activations.items() if not name.startswith(tuple(PATHS))
    }
    return dataclasses.replace(observation, activations=activations)


def quantized_scores(model):
    """Return the products whose operands are both restored from 8 bits, by module path."""
    return [
        product.path
        for product in find_score_products(model)
        if all(value.producer().op_type == "DequantizeLinear" for value in product.operands.values())
    ]


def test_operands_are_signed_and_symmetric(builder):
    """Queries and keys, in front of the transposition, with the largest magnitude that calibration saw."""
    one = builder()
    model, facts = one.make()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert quantized_scores(model) == PATHS
    assert [path for path in facts.quantized if path.endswith(".core")] == PATHS
    for product in find_score_products(model):
        for name, value in product.operands.items():
            scale, zero = (item.const_value.numpy() for item in value.producer().inputs[1:])
            assert (zero.dtype, int(zero)) == (np.int8, 0)
            assert scale == pytest.approx(one.observation.activations[name].plain.max_abs / 127, rel=1e-6)


@pytest.mark.parametrize("method", ["mse", "percentile"])
def test_ranges_follow_the_recipe(builder, method):
    """A method that clips clips here too."""
    own = load_recipe(f"int8-{method}")
    one = builder(recipe=own)
    model, _ = one.make()
    ratios = [
        float(value.producer().inputs[1].const_value.numpy())
        * 127
        / one.observation.activations[name].plain.max_abs
        for product in find_score_products(model)
        for name, value in product.operands.items()
    ]
    assert max(ratios) <= 1 + 1e-6
    assert min(ratios) < 0.97


def test_attention_weights_and_values_stay_float(builder):
    """The second product reads neither from 8 bits."""
    model, _ = builder().make()
    products = [node for node in model.graph if node.op_type == "MatMul" and ".core/" in (node.name or "")]
    second = [node for node in products if node not in {item.node for item in find_score_products(model)}]
    towers = [node for node in second if node.name.startswith("tower.")]
    assert len(towers) == 3
    assert {value.producer().op_type for node in towers for value in node.inputs} == {"Softmax", "Transpose"}


def test_an_attention_stays_float_with_its_output_projection(builder):
    """Keeping a block in float keeps its attention too."""
    model, facts = builder().make({"tower.blocks.1.attention.output": "chosen"})
    assert quantized_scores(model) == [PATHS[0], PATHS[2]]
    assert PATHS[1] not in {*facts.quantized, *facts.kept}


def test_earlier_calibrations_leave_it_in_float(builder):
    """They did not see queries and keys; the reason says how to get on."""
    one = builder(observation=without_scores(builder().observation))
    model, facts = one.make()
    assert quantized_scores(model) == []
    assert not set(PATHS) & set(facts.quantized)
    assert [facts.kept[path] for path in PATHS] == [
        "calibration did not see its queries and keys; calibrate again to quantize it"
    ] * 3


def test_a_recipe_that_insists_needs_them(builder):
    """With the command that mends it."""
    one = builder(recipe=recipe("on"), observation=without_scores(builder().observation))
    with pytest.raises(CalibrationError, match=r"tower\.blocks\.0\.attention\.core.*calibrate again \(pargo"):
        one.make()


def test_off_is_off(builder):
    """Nothing is quantized and nothing listed."""
    model, facts = builder(recipe=recipe("off")).make()
    assert quantized_scores(model) == []
    assert not set(PATHS) & {*facts.quantized, *facts.kept}


def test_the_other_dialect_has_no_such_products(builder):
    """TensorRT: a recipe may wish for them, and not insist."""
    model, facts = builder(dialect="tensorrt").make()
    assert quantized_scores(model) == []
    assert not set(PATHS) & {*facts.quantized, *facts.kept}
    with pytest.raises(QuantizationError, match=r"the dialect 'tensorrt' has none: .* ends at 512 keys"):
        builder(recipe=recipe("on"), dialect="tensorrt").make()


def test_attention_in_one_node_has_no_product(builder, tmp_path_factory):
    """The form `attention_op`: nothing to find, and a recipe that insists is told which form has it."""
    graph = export_once(tmp_path_factory, "pargo_w2", attention="attention_op").path
    assert find_score_products(ir.load(graph)) == []
    with pytest.raises(QuantizationError, match="export it with attention 'fused' or 'structured'"):
        builder(recipe=recipe("on"), base=graph).make()
