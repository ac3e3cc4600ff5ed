"""What a parsed network multiplies in, read from networks that TensorRT-RTX parsed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from engine.inspection_samples import FLOATS, MLP, QUERY, chain, linear, model_of, quantized_variant
from onnx import TensorProto, helper, numpy_helper

from pargo_export.bundle import Bundle
from pargo_export.engine.inspection import explain, inspect_network
from pargo_export.engine.inspection_network import read_network
from pargo_export.inspect import summarize
from pargo_export.quantization.linears import find_linears
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed; its parser makes the networks")

FIRST, SECOND = 2 * 5 * 32 * 64, 2 * 5 * 64 * 16  # operations of the chain's linears


@pytest.fixture
def parse():
    """Return a function that parses a model and keeps everything that the network needs."""
    tensorrt = load_tensorrt("rtx")
    module, kept = tensorrt.module, []

    def parse(model):
        builder = module.Builder(tensorrt.logger)
        network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = module.OnnxParser(network, tensorrt.logger)
        kept.append((builder, parser, network))
        accepted = (
            parser.parse_from_file(str(model))
            if not isinstance(model, onnx.ModelProto)
            else parser.parse(model.SerializeToString())
        )
        assert accepted, [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return network

    return parse


@pytest.fixture
def inspect(parse):
    """Return a function that holds a model against a variant."""
    return lambda model, variant, **choices: inspect_network(
        load_tensorrt("rtx"), parse(model), variant, **choices
    )


@pytest.mark.parametrize("precision", FLOATS)
def test_float_linears(inspect, precision):
    """Both linears are found by module path, with their precision and operations for one image."""
    report = inspect(chain(precision, {}, {}), quantized_variant(precision))
    assert [(item.path, item.precision, item.flops) for item in report.linears] == [
        (MLP, precision, FIRST),
        (QUERY, precision, SECOND),
    ]
    assert (report.built.passed, report.built.share) == (True, 1.0)
    assert report.built.flops == {precision: FIRST + SECOND}
    assert report.built.casts == ()


@pytest.mark.parametrize("narrow", ["int8", "fp8"])
def test_quantized_operands(inspect, narrow):
    """With Q and DQ on both operands the product is in eight bits, with DQ on the weight alone weight-only."""
    both = {"activation": narrow, "weight": narrow}
    built = inspect(chain("float16", both, both), quantized_variant(narrow, MLP, QUERY)).built
    assert (built.linears, built.passed) == ({narrow: 2}, True)
    weight = {"weight": narrow}
    asked = quantized_variant("int8_weight_only", MLP, QUERY)
    built = inspect(chain("float16", weight, weight), asked).built
    assert (built.linears, built.passed) == ({f"{narrow}_weight_only": 2}, narrow == "int8")


@pytest.mark.parametrize(
    ("graph", "variant", "found"),
    [
        (chain("float32", {}, {}), quantized_variant("float16"), f"2 not in float16: {MLP} (float32)"),
        (chain("float16", {}, {}), quantized_variant("int8", MLP, QUERY), f"{QUERY} (float16)"),
    ],
    ids=["FP16 became FP32", "INT8 became FP16"],
)
def test_another_precision_than_asked(inspect, graph, variant, found):
    """A network in a wider type does not pass, and the linears are named."""
    built = inspect(graph, variant).built
    assert (built.passed, built.share) == (False, 0.0)
    assert found in explain(built)
    assert f"asked for {variant.precision}, and 0.0% of the operations" in explain(built)


def test_share_is_by_operations(inspect):
    """One linear that lost the Q of its activation counts by its operations, and fails above the limit only."""
    both = {"activation": "int8", "weight": "int8"}
    graph, variant = (
        chain("float16", both, {"weight": "int8"}),
        quantized_variant("int8", MLP, QUERY),
    )
    built = inspect(graph, variant).built
    assert built.share == FIRST / (FIRST + SECOND)
    assert not built.passed
    assert built.notes == (f"1 not in int8: {QUERY} (int8_weight_only)",)
    assert inspect(graph, variant, min_share=0.66).built.passed
    assert not inspect(graph, variant, min_share=0.67).built.passed


def test_linear_that_is_not_there(inspect):
    """A quantized linear that the network does not have fails, whatever the share."""
    both = {"activation": "int8", "weight": "int8"}
    built = inspect(chain("float16", both, both), quantized_variant("int8", MLP, QUERY, "gone")).built
    assert (built.passed, built.share) == (False, 1.0)
    assert built.notes == ("1 not found: gone",)


def test_kept_linear_in_a_wider_type(inspect):
    """A linear that stayed in float must be in the float type of the variant; the conversion is named."""
    both = {"activation": "int8", "weight": "int8"}
    graph = chain("float16", {"cast_to": TensorProto.FLOAT}, both)
    built = inspect(graph, quantized_variant("int8", QUERY)).built
    assert (built.passed, built.share) == (False, 1.0)
    assert built.notes == (f"1 not in float16: {MLP} (float32)",)
    assert built.casts == (
        f"{MLP}/Cast: to float32 in front of {MLP}/MatMul",
        f"{MLP}/Cast_weight: to float32 in front of {MLP}/MatMul",
    )


def test_conversion_behind_dequantize(inspect):
    """A conversion between DQ and the product keeps them from being one: the product is a float one."""
    both = {"activation": "int8", "weight": "int8", "cast_to": TensorProto.FLOAT}
    built = inspect(chain("float16", {}, both), quantized_variant("int8", QUERY)).built
    assert built.linears == {"float16": 1, "float32": 1}
    assert not built.passed


def test_quantize_without_a_product(inspect):
    """Q and DQ in front of something else are named; they cost time and save none."""
    nodes, weights = linear(MLP, "x", "y", (32, 64), TensorProto.FLOAT16, activation="int8", weight="int8")
    nodes[-1] = helper.make_node(
        "MatMul", ["x", f"{MLP}.weight/DequantizeLinear.out"], ["y"], name=f"{MLP}/MatMul"
    )
    nodes.append(helper.make_node("Relu", [f"{MLP}/DequantizeLinear.out"], ["z"], name="lost/Relu"))
    outputs = [("y", TensorProto.FLOAT16, ["batch", 5, 64]), ("z", TensorProto.FLOAT16, ["batch", 5, 32])]
    graph = model_of(nodes, [("x", TensorProto.FLOAT16, ["batch", 5, 32])], outputs, weights)
    built = inspect(graph, quantized_variant("int8", MLP)).built
    assert built.casts == (f"{MLP}/QuantizeLinear: quantized, but read by no product",)
    assert built.linears == {"int8_weight_only": 1}


def test_tiles_in_the_batch_axis(inspect):
    """Tiles that are folded into the batch axis are counted: an image of 2 x 3 tiles costs six times as much."""
    weight = numpy_helper.from_array(np.ones((16, 8), np.float32), f"{MLP}.weight")
    shapes = {
        "split": np.array([-1, 2, 4, 3, 4]),
        "tokens": np.array([-1, 1, 16]),
        "images": np.array([-1, 6, 8]),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"], name="tower/Reshape"),
        helper.make_node("Transpose", ["a"], ["b"], name="tower/Transpose", perm=[0, 1, 3, 2, 4]),
        helper.make_node("Reshape", ["b", "tokens"], ["c"], name="tower/Reshape_2"),
        helper.make_node("MatMul", ["c", f"{MLP}.weight"], ["d"], name=f"{MLP}/MatMul"),
        helper.make_node("Reshape", ["d", "images"], ["y"], name="tower/Reshape_3"),
    ]
    weights = [weight, *(numpy_helper.from_array(value, name) for name, value in shapes.items())]
    graph = model_of(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 8, 12])],
        [("y", TensorProto.FLOAT, ["batch", 6, 8])],
        weights,
    )
    (found,) = inspect(graph, quantized_variant("float32")).linears
    assert found.flops == 6 * 2 * 16 * 8


@pytest.mark.parametrize(
    ("module", "form"), [("projector.layers.0", "decomposed"), ("tower.blocks.0", "unknown")]
)
def test_products_of_activations_are_no_linears(inspect, module, form):
    """Scores, with a constant query on the left, are products of attention; the tower's softmax is not the projector's."""
    query = numpy_helper.from_array(np.ones((1, 4, 8), np.float32), "query")
    nodes = [
        helper.make_node("Transpose", ["x"], ["k"], name=f"{module}/Transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "k"], ["s"], name=f"{module}/MatMul"),
        helper.make_node("Softmax", ["s"], ["p"], name=f"{module}/Softmax"),
        helper.make_node("MatMul", ["p", "x"], ["y"], name=f"{module}/MatMul_2"),
    ]
    graph = model_of(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 6, 8])],
        [("y", TensorProto.FLOAT, ["batch", 4, 8])],
        [query],
    )
    report = inspect(graph, quantized_variant("float32"))
    assert (report.linears, report.built.attention) == ((), form)
    assert report.built.notes == ("attention products: 2 in float32; 7.68e-07 GFLOP an image",)
    assert not report.built.passed  # nothing to be sure of


@pytest.mark.parametrize("decomposable", [False, True])
def test_attention_operator(parse, decomposable):
    """ONNX's Attention is a kernel of its own unless TensorRT may take it apart."""
    names = ["q", "k", "v"]
    inputs = [(name, TensorProto.FLOAT16, ["batch", 2, 6, 16]) for name in names]
    node = helper.make_node("Attention", names, ["y"], name="projector.layers.0.attention/Attention")
    outputs = [("y", TensorProto.FLOAT16, ["batch", 2, 6, 16])]
    network = parse(model_of([node], inputs, outputs, [], opset=23))
    module = load_tensorrt("rtx").module
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.ATTENTION_INPUT:
            layer.__class__ = module.IAttentionInputLayer
            layer.attention.decomposable = decomposable
    assert read_network(module, network).attention == {"decomposed" if decomposable else "fused kernel"}


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_exported_graphs(parse, exported_bundle, name):
    """Of an exported graph every linear is found, and the operations are those counted from the configuration."""
    bundle = Bundle.open(exported_bundle)
    variant = bundle.variant(name)
    graph = bundle.file(variant.graph)
    found = read_network(load_tensorrt("rtx").module, parse(graph))
    assert {item.path for item in found.linears} == {item.path for item in find_linears(ir.load(graph))}
    assert {item.precision for item in found.linears} == {variant.precision}
    assert (found.attention, found.casts) == ({"decomposed"}, ())
    counted = sum(item.flops for item in (*found.linears, *found.attention_products))
    assert counted == summarize(bundle, batch=1).graphs[name].cost.total().flops
