"""Checkpoint in, verified graph in a bundle out: how the graph is built, typed, named and documented."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph.exports import FORMS, GOLDEN_EXPORTS, golden_id, golden_options, source_model
from onnx import TensorProto, numpy_helper


def expected_operators(config, attention):
    """Count what the architecture needs, with every rewrite of the CPU applied."""
    projector, blocks = config.projector, config.vision.num_layers
    layers = projector.num_layers if projector.has_queries else 0
    crosses = sum(projector.has_cross_attention(layer) for layer in range(layers))
    selfs = max(layers - 1, 0)  # the first is computed at export
    kinds = (projector.num_partial_tokens > 0) + (projector.num_global_tokens > 0)
    partial = int(projector.num_partial_tokens > 0)
    counts = {
        "Conv": 1,
        # Two norms and two sub-norms a block, ln_vision, and one norm after each part of a query layer.
        "LayerNormalization": 4 * blocks + 1 + selfs + crosses + layers,
        "PartialGlobalAttention": 0,
        "BlockDiagonalAttention": 0,
        "Attention": 0,
        "Gelu": layers + (projector.kind == "mlp"),
    }
    # A block has four projections (merged qkv, output, merged gate and up, down) and two products of attention.
    products, softmaxes = 6 * blocks, blocks
    # A query layer: merged qkv and output; query (computed for the first) and output; two of the feed-forward.
    products += 2 * selfs + max(2 * crosses - 1, 0) + 2 * layers + (crosses > 0)
    products += 2 if projector.kind == "mlp" else 1
    if attention == "fused":
        counts |= {"PartialGlobalAttention": crosses, "BlockDiagonalAttention": selfs}
    elif attention == "structured":
        products, softmaxes = products + 2 * kinds * (crosses + selfs), softmaxes + kinds * (crosses + selfs)
    elif attention == "dense":
        products, softmaxes = products + 2 * (crosses + selfs), softmaxes + crosses + selfs
    else:
        counts["Attention"] = blocks + crosses * (kinds - partial) + selfs * kinds
        products, softmaxes = products - 2 * blocks + 2 * partial * crosses, partial * crosses
    return counts | {"MatMul": products, "Softmax": softmaxes}


def test_node_counts_follow_from_the_architecture(golden_export):
    """One function node an attention in `fused`; the products and softmaxes that each other form needs, no more."""
    graph, name, _, attention = golden_export
    expected = expected_operators(source_model(name).config, attention)
    found = graph.operators
    matrix_products = found["MatMul"] + found["Gemm"]
    assert {operator: found[operator] for operator in expected if operator != "MatMul"} == {
        operator: count for operator, count in expected.items() if operator != "MatMul"
    }
    assert matrix_products == expected["MatMul"]
    if attention in ("fused", "dense"):
        assert found["Slice"] == 2, "the class token is cut off once for the residual and once for the query"
    assert not found["Where"]
    domains = {node.domain for node in graph.model.graph.node}
    assert domains <= ({"", "pargo"} if attention == "fused" else {""})
    assert bool(graph.model.functions) == (attention == "fused" and expected["PartialGlobalAttention"] > 0)


@pytest.mark.parametrize(
    ("name", "partial", "global_", "window", "crosses"),
    [("pargo_w2", 18, 4, 2, 4), ("pargo_w4_freq2", 9, 3, 4, 2)],
)
def test_function_nodes_say_who_sees_whom(exported, name, partial, global_, window, crosses):
    """P, G and the window are attributes of every node, and the node says which layer it is."""
    nodes = [
        node
        for node in exported(name, precision="fp32", attention="fused").model.graph.node
        if node.domain == "pargo"
    ]
    seen = {"PartialGlobalAttention": 0, "BlockDiagonalAttention": 0}
    for node in nodes:
        seen[node.op_type] += 1
        values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        sizes = (values["num_partial"], values["num_global"], values["num_heads"])
        assert sizes == (partial, global_, source_model(name).config.projector.num_heads)
        kind = "cross" if node.op_type == "PartialGlobalAttention" else "self"
        assert values["window"] == (window if kind == "cross" else 0)
        assert values.get("scale", 1.0) == 1.0
        assert node.name.startswith("projector.layers.")
        assert f".{kind}_attention.core/{node.op_type}" in node.name
    assert seen == {"PartialGlobalAttention": crosses, "BlockDiagonalAttention": 3}


CASCADED = ("cascaded", {"without_rewrites": ("precompute-first-layer", "fold-softmax-scale")})


def test_cascaded_windows_are_attributes(exported):
    """Each layer's own window, 0 where all are seen."""
    windows = [
        onnx.helper.get_attribute_value(attribute)
        for node in exported(CASCADED[0], **CASCADED[1]).model.graph.node
        if node.op_type == "BlockDiagonalAttention"
        for attribute in node.attribute
        if attribute.name == "window"
    ]
    assert windows == [3, 0, 1]


def test_a_folded_scale_leaves_no_node_in_the_function_bodies(exported):
    """The bodies multiply only where nodes carry a scale that is not 1."""
    folded = exported("pargo_w2", precision="fp32", attention="fused").model
    assert len(folded.functions) == 2
    assert not [node for function in folded.functions for node in function.node if node.op_type == "Mul"]
    scaled = exported(CASCADED[0], **CASCADED[1]).model
    assert all(any(node.op_type == "Mul" for node in function.node) for function in scaled.functions)


def test_masks_are_in_the_dense_form_only(exported):
    """The official additive masks are constants there, named after their layer, and nothing else is infinite."""
    for attention in FORMS:
        graph = exported("pargo_w2", precision="fp32", attention=attention).model
        infinite = [
            tensor.name
            for tensor in graph.graph.initializer
            if tensor.data_type == TensorProto.FLOAT and np.isinf(numpy_helper.to_array(tensor)).any()
        ]
        assert bool(infinite) == (attention == "dense")
        assert all(name.startswith("projector.layers.") and name.endswith(".core.mask") for name in infinite)


def value_types(model):
    """Return the element type of every value once functions are expanded, and the nodes."""
    inlined = onnx.inliner.inline_local_functions(model)
    inferred = onnx.shape_inference.infer_shapes(inlined, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return types, list(inferred.node)


HALF_EXPORTS = [item for item in GOLDEN_EXPORTS if item[1] != "fp32"]


@pytest.mark.parametrize("item", HALF_EXPORTS, ids=golden_id)
def test_half_precision_graphs_are_strongly_typed(exported, item):
    """Weights and products are half precision, softmax is float32, LayerNorm keeps float32 statistics."""
    name, precision, attention = item
    graph = exported(name, **golden_options(precision, attention)).model
    half = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    types, nodes = value_types(graph)
    floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    weights = {tensor.data_type for tensor in graph.graph.initializer} & floating
    assert weights == {half}
    for node in nodes:
        read = {types[value] for value in node.input if value} & floating
        if node.op_type in ("MatMul", "Gemm", "Conv", "Add", "Mul", "Gelu", "Sigmoid", "Concat", "Attention"):
            assert read <= {half}, node.name
        if node.op_type in ("MatMul", "Conv", "LayerNormalization", "Attention"):
            assert types[node.output[0]] == half, node.name
        if node.op_type == "Softmax":
            assert read == {types[node.output[0]]} == {TensorProto.FLOAT}, node.name
        values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "LayerNormalization":
            assert values.get("stash_type", 1) == 1, node.name
        if node.op_type == "Attention":
            assert values["softmax_precision"] == TensorProto.FLOAT
    ends = {value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)}
    assert ends == {TensorProto.FLOAT}


def test_padded_norm_takes_its_statistics_in_float32(exported):
    """With padding the sums are float32, and no float32 constant is larger than one value a channel."""
    graph = exported("micro", precision="fp16", target="cuda").model
    types, nodes = value_types(graph)
    sums = [node for node in nodes if node.op_type == "ReduceSum"]
    assert len(sums) == 2
    assert {types[node.input[0]] for node in sums} == {TensorProto.FLOAT}
    wide = [tensor for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert all(np.prod(tensor.dims, dtype=int) in (1, 64) for tensor in wide)
    (rows,) = [t for t in graph.graph.initializer if t.name.endswith("mlp.gate_up.merged.weight")]
    assert 2 * 64 in rows.dims


@pytest.mark.parametrize("item", GOLDEN_EXPORTS, ids=golden_id)
def test_names_show_the_architecture(exported, item):
    """Nodes, values and weights carry module paths; no name of the exporter's own making is left."""
    name, precision, attention = item
    graph = exported(name, **golden_options(precision, attention)).model.graph
    modules = ("tower.", "tower/", "projector.", "projector/", "output_norm", "graph/")
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    for node in graph.node:
        assert node.name.startswith(modules), node.name
        assert node.name.partition("/")[2].partition("_")[0] == node.op_type
    ends = {value.name for value in (*graph.input, *graph.output)}
    modules += ("normalized_features", "image_features", "query_layer_")  # stage boundaries
    for value in (name for node in graph.node for name in node.output if name and name not in ends):
        assert value.startswith(modules), value
    for tensor in graph.initializer:
        assert tensor.name.startswith(modules), tensor.name
        if len(tensor.dims) == 2 and min(tensor.dims) > 24:
            assert tensor.name.endswith((".weight", ".mask", ".cos", ".signed_sin")), tensor.name
    text = " ".join(names)
    assert "tower.blocks.0.attention." in text
    assert "tower.blocks.0.mlp.gate_up" in text


def test_graph_is_documented(exported):
    """Doc strings on model, graph, inputs, outputs and functions."""
    model = exported("pargo_w2", precision="fp32", attention="fused").model
    documented = [model, model.graph, *model.graph.input, *model.graph.output, *model.functions]
    assert all(each.doc_string for each in documented)
    assert model.producer_name == "pargo-export"
    assert model.graph.name == "pargo-all"


@pytest.mark.parametrize("item", GOLDEN_EXPORTS, ids=golden_id)
def test_bytes_hold_nothing_of_the_machine(exported, item):
    """No path, no stack trace, no host name and no trace of the exporter."""
    name, precision, attention = item
    graph = exported(name, **golden_options(precision, attention))
    content = graph.path.read_bytes()
    for word in (
        b".py",
        b"site-packages",
        b"stack_trace",
        b"pkg.torch",
        b"name_scopes",
        b'File "',
        b"/tmp",
        b"/home",
    ):
        assert word not in content, word
    assert str(graph.path.parent).encode() not in content
    assert content.count(b"front_end") == 0
