"""The ONNX bodies of the fused attention compute what the kernels compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tolerances import TOLERANCES

from pargo_export.graph.functions import FUNCTION_DOMAIN, FUNCTION_DOMAIN_VERSION, attention_functions
from pargo_kernels import block_diagonal_attention, partial_global_attention

HEADS, DIM = 3, 5
# Partial tokens, global tokens, image tokens.
PARTS = [(6, 2, 18), (6, 1, 6), (6, 0, 12), (1, 0, 7), (1, 3, 7), (0, 1, 13), (0, 4, 13)]
PART_IDS = [f"P{partial}_G{global_}_N{tokens}" for partial, global_, tokens in PARTS]
OPSETS = range(18, 24)


def function_model(nodes, *, parts, scaled, cascaded=False, opset=20, dtype=TensorProto.FLOAT):
    """Return a model of function nodes, each (operator, attributes) with an output of its own, checked in full."""
    functions = attention_functions(
        num_partial=parts[0], num_global=parts[1], scaled=scaled, cascaded=cascaded, opset=opset
    )
    width = HEADS * DIM
    inputs = [
        helper.make_tensor_value_info("query", dtype, ["query_batch", sum(parts[:2]), width]),
        helper.make_tensor_value_info("key", dtype, ["batch", None, width]),
        helper.make_tensor_value_info("value", dtype, ["batch", None, width]),
    ]
    outputs = [
        helper.make_tensor_value_info(f"output_{index}", dtype, [None, None, None])
        for index in range(len(nodes))
    ]
    calls = [
        helper.make_node(
            operator, ["query", "key", "value"], [f"output_{index}"], domain=FUNCTION_DOMAIN, **attributes
        )
        for index, (operator, attributes) in enumerate(nodes)
    ]
    used = {operator for operator, _ in nodes}
    model = helper.make_model(
        helper.make_graph(calls, "test", inputs, outputs),
        functions=[function for function in functions if function.name in used],
        opset_imports=[
            helper.make_opsetid("", opset),
            helper.make_opsetid(FUNCTION_DOMAIN, FUNCTION_DOMAIN_VERSION),
        ],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def attributes(parts, window, scale=None):
    """Return the attributes of a node."""
    sizes = {"num_heads": HEADS, "num_partial": parts[0], "num_global": parts[1], "window": window}
    return sizes if scale is None else sizes | {"scale": scale}


def random_feed(parts, batch=2, query_batch=None, dtype=np.float32, *, own=False):
    """Return query, key and value; `own` for self-attention."""
    generator = np.random.default_rng(9)
    queries = sum(parts[:2])
    tokens = queries if own else parts[2]
    shapes = {
        "query": (query_batch or batch, queries, HEADS * DIM),
        "key": (batch, tokens, HEADS * DIM),
        "value": (batch, tokens, HEADS * DIM),
    }
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def run(model, feed):
    """Run in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def expected(operator, feed, given):
    """Return what the kernels' reference gives in float64."""
    tokens = [torch.from_numpy(feed[name]).double() for name in ("query", "key", "value")]
    sizes = {name: given[name] for name in ("num_heads", "num_partial", "num_global")}
    sizes["scale"] = given.get("scale", 1.0)
    if operator == "PartialGlobalAttention":
        return partial_global_attention(*tokens, **sizes).numpy()
    return block_diagonal_attention(*tokens, **sizes, partial_window=given["window"]).numpy()


def assert_close(found, wanted, tolerance="function-float32"):
    """Compare with a named tolerance."""
    assert found.shape == wanted.shape
    error = np.abs(found.astype(np.float64) - wanted).max()
    assert error <= TOLERANCES[tolerance].value, f"{error:.3g}"


def cross_window(parts):
    """Image tokens of one partial token; 0 without any."""
    return parts[2] // parts[0] if parts[0] else 0


@pytest.mark.parametrize("query_batch", [1, 3], ids=["one_query", "query_per_image"])
@pytest.mark.parametrize("scale", [None, 0.3], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("parts", PARTS, ids=PART_IDS)
def test_cross_attention(parts, scale, query_batch):
    """Every combination of parts and scale, with one query for the batch and with one for each image."""
    node = ("PartialGlobalAttention", attributes(parts, cross_window(parts), scale))
    model = function_model([node], parts=parts, scaled=scale is not None)
    feed = random_feed(parts, batch=3, query_batch=query_batch)
    assert_close(run(model, feed)[0], expected(*node[:1], feed, node[1]))


@pytest.mark.parametrize("cascaded", [False, True], ids=["full", "cascaded"])
@pytest.mark.parametrize("scale", [None, 0.3], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("parts", PARTS, ids=PART_IDS)
def test_self_attention(parts, scale, cascaded):
    """Every combination of parts and scale; in a cascaded model each layer has its own window, or none."""
    windows = [0, 1, 3, 5, 99] if cascaded else [0]
    nodes = [("BlockDiagonalAttention", attributes(parts, window, scale)) for window in windows]
    model = function_model(nodes, parts=parts, scaled=scale is not None, cascaded=cascaded)
    feed = random_feed(parts, own=True)
    for found, (operator, given) in zip(run(model, feed), nodes, strict=True):
        assert_close(found, expected(operator, feed, given))


def test_one_body_serves_different_attributes():
    """Heads, parts and scale are read from the node, not from the body."""
    parts = (6, 2, 18)
    nodes = [
        (
            "PartialGlobalAttention",
            {"num_heads": 3, "num_partial": 6, "num_global": 2, "window": 3, "scale": 0.3},
        ),
        (
            "PartialGlobalAttention",
            {"num_heads": 5, "num_partial": 6, "num_global": 2, "window": 3, "scale": 2.0},
        ),
        (
            "PartialGlobalAttention",
            {"num_heads": 1, "num_partial": 3, "num_global": 5, "window": 6, "scale": 0.1},
        ),
        (
            "PartialGlobalAttention",
            {"num_heads": 15, "num_partial": 2, "num_global": 6, "window": 9, "scale": 1.0},
        ),
    ]
    feed = random_feed(parts)
    for found, node in zip(run(function_model(nodes, parts=parts, scaled=True), feed), nodes, strict=True):
        assert_close(found, expected(node[0], feed, node[1]))
    own = [
        ("BlockDiagonalAttention", given | {"window": window})
        for (_, given), window in zip(nodes, (0, 3, 1, 5), strict=True)
    ]
    feed = random_feed(parts, own=True)
    found = run(function_model(own, parts=parts, scaled=True, cascaded=True), feed)
    for output, node in zip(found, own, strict=True):
        assert_close(output, expected(node[0], feed, node[1]))


@pytest.mark.parametrize("opset", OPSETS)
def test_every_supported_opset(opset):
    """Both bodies are valid and right under each operator set that can be asked for."""
    parts = (6, 2, 8)  # eight image tokens, so that one feed serves both
    cross = (
        "PartialGlobalAttention",
        {"num_heads": 3, "num_partial": 2, "num_global": 6, "window": 4, "scale": 0.3},
    )
    own = ("BlockDiagonalAttention", attributes(parts, 3, 0.3))
    model = function_model([cross, own], parts=parts, scaled=True, cascaded=True, opset=opset)
    feed = random_feed(parts)
    for found, (operator, given) in zip(run(model, feed), (cross, own), strict=True):
        assert_close(found, expected(operator, feed, given))


@pytest.mark.parametrize("parts", PARTS, ids=PART_IDS)
def test_another_runtime_agrees(parts):
    """The reference evaluator of ONNX, which inlines nothing, gives the same."""
    nodes = [("PartialGlobalAttention", attributes(parts, cross_window(parts), 0.3))]
    feed = random_feed(parts)
    model = function_model(nodes, parts=parts, scaled=True)
    assert_close(ReferenceEvaluator(model).run(None, feed)[0], expected(nodes[0][0], feed, nodes[0][1]))
    nodes = [("BlockDiagonalAttention", attributes(parts, 3, 0.3))]
    feed = random_feed(parts, own=True)
    model = function_model(nodes, parts=parts, scaled=True, cascaded=True)
    assert_close(ReferenceEvaluator(model).run(None, feed)[0], expected(nodes[0][0], feed, nodes[0][1]))


def test_float16_runs_softmax_in_float32():
    """The body widens before the softmax and narrows after it, so that float16 in gives float16 out."""
    parts = (6, 2, 18)
    nodes = [("PartialGlobalAttention", attributes(parts, 3, 0.3))]
    model = function_model(nodes, parts=parts, scaled=True, dtype=TensorProto.FLOAT16)
    feed = random_feed(parts, dtype=np.float16)
    found = run(model, feed)[0]
    assert found.dtype == np.float16
    assert_close(found, expected(nodes[0][0], feed, nodes[0][1]), "attention-half")
    inlined = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inlined.graph.value_info}
    softmaxes = [node for node in inlined.graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == 2
    assert {types[name] for node in softmaxes for name in (*node.input, *node.output)} == {TensorProto.FLOAT}


def test_large_scores_stay_finite():
    """Hidden neighbours are hidden by minus infinity, and no row is left without any token."""
    parts = (6, 2, 18)
    nodes = [("BlockDiagonalAttention", attributes(parts, window)) for window in (1, 3)]
    feed = random_feed(parts, own=True)
    feed = {"query": feed["query"] * 1e4, "key": feed["key"] * 1e4, "value": feed["value"]}
    found = run(function_model(nodes, parts=parts, scaled=False, cascaded=True), feed)
    for output, (operator, given) in zip(found, nodes, strict=True):
        assert_close(output, expected(operator, feed, given))


def operators(parts, *, scaled=False, cascaded=False):
    """Return the operators of both bodies."""
    functions = attention_functions(
        num_partial=parts[0], num_global=parts[1], scaled=scaled, cascaded=cascaded, opset=20
    )
    return [Counter(node.op_type for node in function.node) for function in functions]


def test_bodies_hold_no_idle_nodes():
    """No multiplication without a scale, no window without a cascade, no cut where there is one part."""
    for counts in operators((6, 2, 18)):
        assert not counts["Mul"]
        assert not counts["Where"]
        assert not counts["Range"]
        assert counts["Softmax"] == 2
    for parts in ((6, 0, 18), (0, 2, 18)):
        for counts in operators(parts):
            assert not counts["Split"]
            assert counts["Softmax"] == 1
    cross, own = operators((6, 2, 18), scaled=True, cascaded=True)
    assert (cross["Mul"], own["Mul"]) == (2, 2)
    assert (cross["Where"], own["Where"]) == (0, 1)
    assert operators((0, 2, 18), cascaded=True)[1]["Where"] == 0


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
def test_signatures(scaled):
    """Names, inputs, attributes and documentation are the published ones."""
    functions = attention_functions(num_partial=6, num_global=2, scaled=scaled, cascaded=True, opset=21)
    assert [function.name for function in functions] == ["PartialGlobalAttention", "BlockDiagonalAttention"]
    for function in functions:
        assert function.domain == "pargo"
        assert list(function.input) == ["query", "key", "value"]
        assert list(function.output) == ["output"]
        names = ["num_heads", "num_partial", "num_global", "window"]
        assert list(function.attribute) == names + ["scale"] * scaled
        assert [(each.domain, each.version) for each in function.opset_import] == [("", 21)]
        assert function.doc_string
