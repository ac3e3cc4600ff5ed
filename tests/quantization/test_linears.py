"""Linears are found by the modules that they come from."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from quantization.samples import linear_graph

from pargo_export.errors import QuantizationError
from pargo_export.quantization.linears import block_of, find_linears, weight_array


def test_every_linear_of_the_network_in_order(float_bundle):
    """Patch embedding, tower, context, query layers and output of an exported graph, by module path."""
    linears = find_linears(ir.load(float_bundle / "onnx/fp32.onnx"))
    paths = [linear.path for linear in linears]
    assert paths[0] == "tower.patch_embedding"
    assert paths[-1] == "projector.llm_projection"
    assert len(paths) == len(set(paths)) == 36
    blocks = list(dict.fromkeys(linear.block for linear in linears))
    assert blocks == [
        "tower.patch_embedding",
        *(f"tower.blocks.{index}" for index in range(3)),
        "projector.context",
        *(f"projector.layers.{index}" for index in range(4)),
        "projector.llm_projection",
    ]
    assert {linear.node.op_type for linear in linears} == {"Conv", "MatMul"}
    for linear in linears:
        assert linear.num_weights == weight_array(linear.weight).size


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("tower.blocks.3.mlp.down", "tower.blocks.3"),
        ("tower.blocks.13.attention.qkv.merged", "tower.blocks.13"),
        ("projector.layers.1.cross_attention.query", "projector.layers.1"),
        ("projector.llm_projection", "projector.llm_projection"),
        ("tower.patch_embedding", "tower.patch_embedding"),
        ("tower.blocks.33x.mlp", "tower.blocks"),
    ],
)
def test_block_of(path, block):
    """The tower block or query layer, else the first two parts."""
    assert block_of(path) == block


def test_products_without_a_weight_are_no_linears():
    """Attention products and constants of higher rank are left alone."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([1, 2, 3, 3]))
    queries = ir.Value(name="q", shape=ir.Shape([1, 2, 3, 3]), const_value=ir.tensor(np.ones((1, 2, 3, 3))))
    nodes = [ir.node("MatMul", [x, x], name="a/MatMul"), ir.node("MatMul", [x, queries], name="b/MatMul")]
    graph = ir.Graph([x], [nodes[-1].outputs[0]], nodes=nodes, initializers=[queries])
    assert find_linears(ir.Model(graph, ir_version=10)) == []


def test_a_foreign_graph_is_refused():
    """A product whose node has no module path was not made by this package."""
    model = linear_graph("MatMul", np.ones((3, 4), np.float32))
    model.graph[0].name = "MatMul_17"
    with pytest.raises(
        QuantizationError, match=r"'MatMul_17' \(MatMul\) has no module path.*pargo-export onnx"
    ):
        find_linears(model)


def test_two_linears_of_one_name_are_refused():
    """Recipes and reasons go by module path, so it must be unique."""
    model = linear_graph("MatMul", np.ones((3, 3), np.float32))
    first = model.graph[0]
    second = ir.node("MatMul", [first.outputs[0], first.inputs[1]], name="block.linear/MatMul_1")
    model.graph.insert_after(first, second)
    with pytest.raises(QuantizationError, match=r"several products are called block\.linear"):
        find_linears(model)


def test_weights_behind_hard_links_are_refused_with_the_way_out(tmp_path):
    """onnx_ir reads no file that has a second name; the message says which weight, and what to do."""
    weight = np.ones((64, 64), np.float32)
    path = tmp_path / "graph.onnx"
    ir.save(linear_graph("MatMul", weight), path, external_data="graph.onnx.data", size_threshold_bytes=0)
    (linear,) = find_linears(ir.load(path))
    assert np.array_equal(weight_array(linear.weight), weight)
    (tmp_path / "second").hardlink_to(tmp_path / "graph.onnx.data")
    (linear,) = find_linears(ir.load(path))
    with pytest.raises(QuantizationError, match=r"'block\.linear\.weight' cannot be read.*cp -r"):
        weight_array(linear.weight)
