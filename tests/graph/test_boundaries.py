"""Stage boundaries and probes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph.exports import run
from onnx import TensorProto, helper, numpy_helper

from pargo_export.graph.boundaries import detach_boundaries, write_probe


@pytest.fixture
def model():
    """Return a float16 graph with the output `tokens` and three boundaries: two behind casts, one used itself."""
    weight = numpy_helper.from_array(np.full((2, 2), 0.5, np.float16), "weight")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["first"]),
        helper.make_node("Relu", ["first"], ["second"]),
        helper.make_node("Cast", ["second"], ["tokens"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["first"], ["stage_1"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["second"], ["stage_2"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["pixels"], ["stage_0"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2])
        for name in ("tokens", "stage_0", "stage_1", "stage_2")
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializer=[weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


STAGES = ["stage_0", "stage_1", "stage_2"]


def test_boundaries_become_inner_values(model):
    """One output is left, the casts that served boundaries alone are gone, and each holder is what was cast."""
    holders = detach_boundaries(model, STAGES)
    assert [output.name for output in model.graph.outputs] == ["tokens"]
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Relu", "Cast"]
    assert holders == {"stage_0": "stage_0", "stage_1": "first", "stage_2": "second"} | {
        "stage_0": holders["stage_0"]
    }


def test_a_boundary_that_something_reads_keeps_its_node(model):
    """Its own cast is no leftover."""
    cast = next(node for node in model.graph if node.outputs[0].name == "stage_1")
    reader = ir.Node("", "Neg", [cast.outputs[0]])
    reader.outputs[0].name = "negative"
    model.graph.append(reader)
    model.graph.outputs.append(reader.outputs[0])
    holders = detach_boundaries(model, ["stage_1"])
    assert holders == {"stage_1": "stage_1"}
    assert "Neg" in [node.op_type for node in model.graph]
    assert cast in list(model.graph)


def test_without_boundaries_nothing_changes(model):
    """A graph without stages keeps its outputs."""
    assert detach_boundaries(model, []) == {}
    assert len(model.graph.outputs) == 4


def test_probe_gives_the_stages_beside_the_output(model, tmp_path):
    """It runs on its own, with the holders as further outputs, in the order of the stages."""
    holders = detach_boundaries(model, STAGES[1:])
    model.graph.outputs[:] = model.graph.outputs[:1]
    graph, probe = tmp_path / "graph.onnx", tmp_path / "graph.probe.onnx"
    ir.save(model, graph)
    before = graph.read_bytes()
    write_probe(graph, probe, holders)
    assert graph.read_bytes() == before
    values = np.array([[1.0, -3.0], [2.0, 2.0]], np.float32)
    tokens, first, second = run(probe, values)
    assert np.array_equal(first, [[-1, -1], [2, 2]])
    assert np.array_equal(second, [[0, 0], [2, 2]])
    assert np.array_equal(tokens, second)
    assert first.dtype == np.float16


def test_probe_reads_the_weights_file_of_the_graph(model, tmp_path):
    """The weights are not written a second time."""
    holders = detach_boundaries(model, STAGES[1:])
    graph, probe = tmp_path / "graph.onnx", tmp_path / "graph.probe.onnx"
    ir.save(model, graph, external_data="graph.onnx.data", size_threshold_bytes=0)
    write_probe(graph, probe, holders)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "graph.onnx",
        "graph.onnx.data",
        "graph.probe.onnx",
    ]
    assert np.array_equal(run(probe, np.ones((1, 2), np.float32))[0], [[1, 1]])


def test_a_stage_that_is_an_output_already_is_not_added_again(model, tmp_path):
    """The last stage of a graph in float32 may be its output."""
    graph, probe = tmp_path / "graph.onnx", tmp_path / "graph.probe.onnx"
    ir.save(model, graph)
    write_probe(graph, probe, {"stage_1": "stage_1", "also": "first", "again": "first"})
    names = [output.name for output in onnx.load(probe).graph.output]
    assert names == ["tokens", "stage_0", "stage_1", "stage_2", "first"]
