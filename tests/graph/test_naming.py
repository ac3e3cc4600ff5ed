"""Names that show the architecture."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from pargo_export.graph.naming import name_by_module

SCOPES = "pkg.torch.onnx.name_scopes"


def constant(name, *shape):
    """Return an initializer."""
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    value.const_value = ir.tensor(np.ones(shape, np.float32), name=name)
    return value


def scoped(operator, inputs, *modules, outputs=1, extra=None):
    """Return a node traced in nested modules; `None` for one that the optimizer made."""
    node = ir.Node("", operator, inputs, num_outputs=outputs, name="node_17")
    if modules != (None,):
        node.metadata_props[SCOPES] = str([*modules, "operator"])
    node.metadata_props.update(extra or {})
    return node


def graph_model(inputs, nodes, outputs, constants):
    """Return a model."""
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


@pytest.fixture
def named():
    """Return a named model with one node of every kind, and the nodes."""
    pixels = ir.Value(name="pixel_values", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    parameter = constant("front_end.tower.down.weight", 2, 2)
    transposed = constant("val_3", 2, 2)
    table = constant("val_9", 2)
    top = scoped("Cast", [pixels], "", "front_end")
    outside = scoped("Cast", [top.outputs[0]], "")
    first = scoped(
        "Mul", [outside.outputs[0], parameter], "", "front_end", "front_end.tower", "front_end.tower.down"
    )
    second = scoped(
        "MatMul", [first.outputs[0], transposed], "", "front_end", "front_end.tower", "front_end.tower.down"
    )
    third = scoped(
        "MatMul", [second.outputs[0], transposed], "", "front_end", "front_end.tower", "front_end.tower.down"
    )
    split = scoped(
        "Split",
        [third.outputs[0], table],
        "",
        "front_end",
        "front_end.tower",
        "front_end.tower.qkv",
        outputs=2,
    )
    made = scoped("Reshape", [split.outputs[1], table], None)
    last = scoped(
        "Add",
        [made.outputs[0], split.outputs[0]],
        "",
        "front_end",
        "front_end.projector",
        extra={
            "pkg.torch.onnx.stack_trace": "File /home/someone/model.py, line 3",
            "namespace": "x",
            "kept": "yes",
        },
    )
    last.outputs[0].name = "visual_tokens"
    last.outputs[0].metadata_props["pkg.torch.export.graph_signature"] = "x"
    nodes = [top, outside, first, second, third, split, made, last]
    model = graph_model([pixels], nodes, [last.outputs[0]], [parameter, transposed, table])
    model.metadata_props["pkg.torch.version"] = "x"
    model.graph.metadata_props["pkg.torch.export.x"] = "x"
    pixels.metadata_props["pkg.torch.export.y"] = "x"
    parameter.metadata_props["pkg.torch.onnx.original_node_name"] = "x"
    assert name_by_module(model) == len(nodes)
    return model


def test_nodes_are_named_after_their_module(named):
    """Path, slash, operator; a number from the second of a kind on; `graph` outside every module."""
    assert [node.name for node in named.graph] == [
        "graph/Cast",
        "graph/Cast_2",
        "tower.down/Mul",
        "tower.down/MatMul",
        "tower.down/MatMul_2",
        "tower.qkv/Split",
        "tower.qkv/Reshape",
        "projector/Add",
    ]


def test_values_carry_the_names_of_their_nodes(named):
    """Several outputs are numbered; the inputs and outputs of the graph keep their names."""
    nodes = list(named.graph)
    assert nodes[2].outputs[0].name == "tower.down/Mul"
    assert [value.name for value in nodes[5].outputs] == ["tower.qkv/Split.0", "tower.qkv/Split.1"]
    assert [value.name for value in (*named.graph.inputs, *named.graph.outputs)] == [
        "pixel_values",
        "visual_tokens",
    ]


def test_weights_are_named_after_their_first_reader(named):
    """Parameters keep their path, a transposed weight gets it back, other constants say what they feed."""
    assert list(named.graph.initializers) == [
        "tower.down.weight",
        "tower.down.weight_2",
        "tower.qkv/Split/constant_1",
    ]


def test_exporter_metadata_is_removed(named):
    """No stack trace or scope is left on nodes, values, graph or model; what others wrote is kept."""
    holders = [
        named,
        named.graph,
        *named.graph.inputs,
        *named.graph.outputs,
        *named.graph.initializers.values(),
    ]
    for node in named.graph:
        holders += [node, *node.outputs]
    left = {key for holder in holders for key in holder.metadata_props}
    assert left == {"kept"}


def test_names_are_unique_and_the_model_survives(named):
    """The serialized model is a valid graph whose names are all different."""
    proto = ir.to_proto(named)
    values = [name for node in proto.graph.node for name in node.output]
    weights = [tensor.name for tensor in proto.graph.initializer]
    names = values + weights + ["pixel_values"]
    assert len(names) == len(set(names))
    assert all(name in names for node in proto.graph.node for name in node.input)


def test_naming_twice_changes_nothing_of_value(named):
    """The second time finds no scopes and still gives every node a unique name."""
    name_by_module(named)
    names = [node.name for node in named.graph]
    assert len(set(names)) == len(names)
