"""Merged products whose result is cut are written in parts, with the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from quantization.samples import graph_of, run_model

from pargo_export.quantization.split_products import split_merged_products

SIZES = (3, 5, 2)


def merged_graph(*, bias=True, axis=-1, weight_axis=1, reader=False, sizes=SIZES, output=False):
    """Return `x [2, 4, 6] -> MatMul(8-bit weight) -> Add -> Split -> Relu each`."""
    generator = np.random.default_rng(5)
    total = sum(sizes)
    weights = {
        "w/quantized": generator.integers(-127, 128, (6, total), np.int8),
        "w/scale": generator.uniform(0.01, 0.1, total if weight_axis else 6).astype(np.float32),
        "w/zero_point": np.zeros(total if weight_axis else 6, np.int8),
        "sizes": np.array(sizes if axis == -1 else (1, 3), np.int64),
    }
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([2, 4, 6]))
    constants = [ir.Value(name=name) for name in weights if name.startswith("w/")]
    restore = ir.node("DequantizeLinear", constants, {"axis": weight_axis}, name="w/DequantizeLinear")
    restore.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    product = ir.node("MatMul", [x, restore.outputs[0]], name="block.linear/MatMul")
    nodes, last = [restore, product], product.outputs[0]
    if bias:
        weights["b"] = generator.standard_normal(total).astype(np.float32)
        nodes.append(ir.node("Add", [last, ir.Value(name="b")], name="block.linear/Add"))
        last = nodes[-1].outputs[0]
    last.shape, last.type = ir.Shape([2, 4, total]), ir.TensorType(ir.DataType.FLOAT)
    parts = sizes if axis == -1 else (1, 3)
    split = ir.node(
        "Split", [last, ir.Value(name="sizes")], {"axis": axis}, num_outputs=len(parts), name="block/Split"
    )
    nodes.append(split)
    for index, size in enumerate(parts):
        split.outputs[index].name = f"part_{index}"
        split.outputs[index].shape = ir.Shape([2, 4, size] if axis == -1 else [2, size, total])
        split.outputs[index].type = ir.TensorType(ir.DataType.FLOAT)
        nodes.append(ir.node("Relu", [split.outputs[index]], name=f"relu_{index}"))
    outputs = [node.outputs[0] for node in nodes if node.op_type == "Relu"]
    if reader:
        nodes.append(ir.node("Neg", [last], name="reader"))
        outputs.append(nodes[-1].outputs[0])
    if output:
        outputs.append(split.outputs[0])
    for index, value in enumerate(outputs):
        value.name = value.name or f"y_{index}"
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = value.shape or ir.Shape([None] * 3)
    return graph_of(nodes, [x], weights, outputs=outputs)


def operators(model):
    """Return the operators in order."""
    return sorted(node.op_type for node in model.graph)


@pytest.mark.parametrize("bias", [True, False])
def test_the_parts_are_the_same_numbers(bias):
    """One product for each part with its own weights, scales and bias, bit for bit the same; nothing is left over."""
    x = np.random.default_rng(1).standard_normal((2, 4, 6)).astype(np.float32)
    model = merged_graph(bias=bias)
    expected = run_model(model, x)
    assert split_merged_products(model) == 1
    model.graph.sort()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for found, value in zip(run_model(model, x), expected, strict=True):
        assert np.array_equal(found, value)
    adds = ["Add"] * 3 if bias else []
    assert operators(model) == sorted(["DequantizeLinear", "MatMul", "Relu"] * 3 + adds)
    stored = {name: value.const_value.numpy().shape for name, value in model.graph.initializers.items()}
    assert [stored.pop(f"w/quantized_part_{index}") for index in range(3)] == [(6, size) for size in SIZES]
    assert len(stored) == (9 if bias else 6)  # scale, zero point and bias of each part, and of nothing else
    names = [node.name for node in model.graph if node.op_type == "MatMul"]
    assert names == [f"block.linear/MatMul_part_{index}" for index in range(3)]


@pytest.mark.parametrize(
    "changes",
    [
        {"reader": True},
        {"output": True},
        {"axis": 1},
        {"weight_axis": 0},
    ],
    ids=["read elsewhere", "an output", "another axis", "scales of the inputs"],
)
def test_everything_else_stays(changes):
    """Where the whole result is needed, or the cut is not one of output channels."""
    model = merged_graph(**changes)
    before = operators(model)
    assert split_merged_products(model) == 0
    assert operators(model) == before


def test_every_merged_product_of_a_graph_for_cpus_is_split(quantized_bundle):
    """Query, key and value, gate and up, and the keys and values of all layers; on a GPU they stay merged."""
    splits = {}
    for name in ("int8-cpu", "int8-fp32", "weights-cpu"):
        model = ir.load(quantized_bundle / f"onnx/{name}.onnx")
        splits[name] = [
            node.name for node in model.graph if node.op_type == "Split" and ".merged/" in node.name
        ]
    assert splits["int8-cpu"] == []
    assert len(splits["int8-fp32"]) == len(splits["weights-cpu"]) > 6
