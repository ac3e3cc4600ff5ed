"""bfloat16 where no bfloat16 kernels exist."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from graph.exports import run
from onnx import TensorProto, helper

from pargo_export.graph.emulate_bfloat16 import emulate_bfloat16

BFLOAT16, FLOAT = TensorProto.BFLOAT16, TensorProto.FLOAT


def bfloat16_initializer(name, tensor):
    """Return an initializer with the bits of a bfloat16 tensor."""
    bits = tensor.bfloat16().view(torch.int16).numpy().tobytes()
    return helper.make_tensor(name, BFLOAT16, tuple(tensor.shape), bits, raw=True)


def save(path, nodes, initializers=(), functions=(), shape=(None, 4), outputs=("output",)):
    """Write a graph from float32 `values` to float32 outputs."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("values", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        initializer=list(initializers),
    )
    opsets = [helper.make_opsetid("", 22), *([helper.make_opsetid("local", 1)] if functions else [])]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    onnx.save(model, path)
    return path


def random_values(*shape, seed=0):
    """Return float32 values of several magnitudes, none of which is a bfloat16 already."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 10 ** (4 * torch.rand(shape, generator=generator) - 2)


def test_every_value_is_rounded_as_pytorch_rounds(tmp_path):
    """A cast to bfloat16 and back loses exactly the bits that PyTorch loses, ties and all."""
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        helper.make_node("Cast", ["half"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes)
    emulate_bfloat16(graph)
    values = random_values(64, 4)
    values[0] = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38]
    )  # ties to even, and near the largest
    found = run(graph, values.numpy())[0]
    assert np.array_equal(found, values.bfloat16().float().numpy())
    assert not np.array_equal(found, values.numpy())


def test_operators_round_their_results_but_not_their_sums(tmp_path):
    """Products and sums are float32, each operator's output is rounded once: what a GPU does."""
    weight, bias = random_values(4, 3, seed=1), random_values(3, seed=2)
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Mul", ["sum", "sum"], ["square"]),
        helper.make_node("Cast", ["square"], ["output"], to=FLOAT),
    ]
    initializers = [bfloat16_initializer("weight", weight), bfloat16_initializer("bias", bias)]
    graph = save(tmp_path / "graph.onnx", nodes, initializers)
    emulate_bfloat16(graph)
    values = random_values(16, 4)
    product = (values.bfloat16().float() @ weight.bfloat16().float()).bfloat16()
    total = (product.float() + bias.bfloat16().float()).bfloat16()
    expected = (total.float() * total.float()).bfloat16().float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())
    exact = ((values @ weight) + bias) ** 2
    assert not np.allclose(exact.numpy(), expected.numpy(), rtol=1e-4)


def test_float32_values_stay_exact(tmp_path):
    """What the graph computes in float32, such as a softmax, is not rounded in between."""
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        helper.make_node("Cast", ["half"], ["wide"], to=FLOAT),
        helper.make_node("Softmax", ["wide"], ["weights"], axis=-1),
        helper.make_node("Mul", ["weights", "weights"], ["square"]),
        helper.make_node("Cast", ["square"], ["narrow"], to=BFLOAT16),
        helper.make_node("Cast", ["narrow"], ["rounded"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, outputs=("square", "rounded"))
    emulate_bfloat16(graph)
    values = random_values(8, 4)
    square, rounded = run(graph, values.numpy())
    expected = torch.softmax(values.bfloat16().float(), dim=-1) ** 2
    assert np.allclose(square, expected.numpy(), rtol=1e-6, atol=0)
    assert np.array_equal(rounded, torch.from_numpy(square).bfloat16().float().numpy())
    assert not np.array_equal(rounded, square)


def test_several_outputs_and_constants(tmp_path):
    """Every part of a split is rounded, and a bfloat16 constant inside the graph is read as float32."""
    third = torch.tensor([1 / 3])
    constant = helper.make_node("Constant", [], ["third"], value=bfloat16_initializer("", third))
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        constant,
        helper.make_node("Mul", ["half", "third"], ["scaled"]),
        helper.make_node("Split", ["scaled"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes)
    emulate_bfloat16(graph)
    values = random_values(8, 4)
    scaled = (values.bfloat16() * third.bfloat16()).float()
    expected = (scaled[:, :2] + scaled[:, 2:]).bfloat16().float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())


def test_functions_are_looked_into(tmp_path):
    """Values inside a model-local function are rounded too."""
    function = onnx.parser.parse_function(
        '<domain: "local", opset_import: ["" : 22]> Twice (x) => (y) { s = Mul (x, x)  y = Mul (s, s) }'
    )
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        helper.make_node("Twice", ["half"], ["power"], domain="local"),
        helper.make_node("Cast", ["power"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, functions=[function])
    emulate_bfloat16(graph)
    values = random_values(8, 4)
    square = values.bfloat16() * values.bfloat16()
    assert np.array_equal(run(graph, values.numpy())[0], (square * square).float().numpy())


@pytest.mark.parametrize("size", [4, 600])
def test_weights_files_are_left_alone(tmp_path, size):
    """External weights stay where they are, byte for byte."""
    weight = random_values(4, size)
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=BFLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, [bfloat16_initializer("weight", weight)])
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="weights.data", size_threshold=0)
    before = (tmp_path / "weights.data").read_bytes()
    emulate_bfloat16(graph)
    assert (tmp_path / "weights.data").read_bytes() == before
    values = random_values(3, 4)
    expected = (values.bfloat16().float() @ weight.bfloat16().float()).bfloat16().float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())


def test_a_float32_graph_computes_as_before(tmp_path):
    """Nothing is rounded where nothing is bfloat16."""
    graph = save(tmp_path / "graph.onnx", [helper.make_node("Neg", ["values"], ["output"])])
    emulate_bfloat16(graph)
    values = random_values(3, 4).numpy()
    assert np.array_equal(run(graph, values)[0], -values)
