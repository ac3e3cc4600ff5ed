"""Half precision as a GPU computes it, where no such kernels exist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from graph.exports import run
from onnx import TensorProto, helper

from pargo_export.graph.emulate_half import EXACT, emulate_half, emulated

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Half:
    """One half precision, by its names in ONNX and PyTorch."""

    precision: str
    onnx: int
    torch: torch.dtype

    def rounded(self, tensor):
        """Return float32 values after a round trip."""
        return tensor.to(self.torch).float()

    def initializer(self, name, tensor):
        """Return an initializer with the bits of the rounded tensor."""
        bits = tensor.to(self.torch).view(torch.int16).numpy().tobytes()
        return helper.make_tensor(name, self.onnx, tuple(tensor.shape), bits, raw=True)


HALVES = [
    Half("float16", TensorProto.FLOAT16, torch.float16),
    Half("bfloat16", TensorProto.BFLOAT16, torch.bfloat16),
]


@pytest.fixture(params=HALVES, ids=lambda half: half.precision)
def half(request):
    """Each half precision in turn."""
    return request.param


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
    """Return float32 values of several magnitudes, none of which is a half already."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 10 ** (4 * torch.rand(shape, generator=generator) - 2)


def test_every_value_is_rounded_as_pytorch_rounds(tmp_path, half):
    """A cast to half and back loses exactly the bits that PyTorch loses, ties and all."""
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("Cast", ["half"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes)
    emulate_half(graph, half.precision)
    values = random_values(64, 4)
    step = torch.finfo(half.torch).eps
    values[0] = torch.tensor(
        [1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, 0.9 * torch.finfo(half.torch).max]
    )
    values[1] = torch.tensor([65519.0, 65520.0, -7e4, 3.4e38])  # the last float16, and what overflows
    found = run(graph, values.numpy())[0]
    assert np.array_equal(found, values.to(half.torch).float().numpy())
    assert not np.array_equal(found, values.numpy())


def test_operators_round_their_results_but_not_their_sums(tmp_path, half):
    """Products and sums are float32, each operator's output is rounded once: what a GPU does."""
    weight, bias = random_values(4, 3, seed=1), random_values(3, seed=2)
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Mul", ["sum", "sum"], ["square"]),
        helper.make_node("Cast", ["square"], ["output"], to=FLOAT),
    ]
    initializers = [half.initializer("weight", weight), half.initializer("bias", bias)]
    graph = save(tmp_path / "graph.onnx", nodes, initializers)
    emulate_half(graph, half.precision)
    values = random_values(16, 4)
    product = (values.to(half.torch).float() @ weight.to(half.torch).float()).to(half.torch)
    total = (product.float() + bias.to(half.torch).float()).to(half.torch)
    expected = (total.float() * total.float()).to(half.torch).float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())
    exact = ((values @ weight) + bias) ** 2
    assert not np.allclose(exact.numpy(), expected.numpy(), rtol=1e-4)


def test_float32_values_stay_exact(tmp_path, half):
    """What the graph computes in float32, such as a softmax, is not rounded in between."""
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("Cast", ["half"], ["wide"], to=FLOAT),
        helper.make_node("Softmax", ["wide"], ["weights"], axis=-1),
        helper.make_node("Mul", ["weights", "weights"], ["square"]),
        helper.make_node("Cast", ["square"], ["narrow"], to=half.onnx),
        helper.make_node("Cast", ["narrow"], ["rounded"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, outputs=("square", "rounded"))
    emulate_half(graph, half.precision)
    values = random_values(8, 4)
    square, rounded = run(graph, values.numpy())
    expected = torch.softmax(values.to(half.torch).float(), dim=-1) ** 2
    assert np.allclose(square, expected.numpy(), rtol=1e-6, atol=0)
    assert np.array_equal(rounded, torch.from_numpy(square).to(half.torch).float().numpy())
    assert not np.array_equal(rounded, square)


def test_several_outputs_and_constants(tmp_path, half):
    """Every part of a split is rounded, and a half constant inside the graph is read as float32."""
    third = torch.tensor([1 / 3])
    constant = helper.make_node("Constant", [], ["third"], value=half.initializer("", third))
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        constant,
        helper.make_node("Mul", ["half", "third"], ["scaled"]),
        helper.make_node("Split", ["scaled"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes)
    emulate_half(graph, half.precision)
    values = random_values(8, 4)
    scaled = (values.to(half.torch) * third.to(half.torch)).float()
    expected = (scaled[:, :2] + scaled[:, 2:]).to(half.torch).float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())


def test_functions_are_looked_into(tmp_path, half):
    """Values inside a model-local function are rounded too."""
    function = onnx.parser.parse_function(
        '<domain: "local", opset_import: ["" : 22]> Twice (x) => (y) { s = Mul (x, x)  y = Mul (s, s) }'
    )
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("Twice", ["half"], ["power"], domain="local"),
        helper.make_node("Cast", ["power"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, functions=[function])
    emulate_half(graph, half.precision)
    values = random_values(8, 4)
    square = values.to(half.torch) * values.to(half.torch)
    assert np.array_equal(run(graph, values.numpy())[0], (square * square).float().numpy())


@pytest.mark.parametrize("size", [4, 600])
def test_weights_files_are_left_alone(tmp_path, half, size):
    """External weights stay where they are, byte for byte."""
    weight = random_values(4, size)
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, [half.initializer("weight", weight)])
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="weights.data", size_threshold=0)
    before = (tmp_path / "weights.data").read_bytes()
    emulate_half(graph, half.precision)
    assert (tmp_path / "weights.data").read_bytes() == before
    values = random_values(3, 4)
    expected = (values.to(half.torch).float() @ weight.to(half.torch).float()).to(half.torch).float()
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())


def test_a_float32_graph_computes_as_before(tmp_path, half):
    """Nothing is rounded where nothing is half."""
    graph = save(tmp_path / "graph.onnx", [helper.make_node("Neg", ["values"], ["output"])])
    emulate_half(graph, half.precision)
    values = random_values(3, 4).numpy()
    assert np.array_equal(run(graph, values)[0], -values)


def test_an_overflow_becomes_infinite(tmp_path):
    """float16 products above 65504 are infinite after the operator, with their sign, and NaN where they cancel."""
    half = HALVES[0]
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("Mul", ["half", "half"], ["square"]),
        helper.make_node("Sub", ["square", "square"], ["difference"]),
        helper.make_node("Cast", ["square"], ["output"], to=FLOAT),
        helper.make_node("Cast", ["difference"], ["cancelled"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, outputs=("output", "cancelled"))
    emulate_half(graph, "float16")
    output, cancelled = run(graph, np.array([[255, 256, -256, 1]], np.float32))
    assert output.tolist() == [[65024, np.inf, np.inf, 1]]
    assert np.array_equal(cancelled, [[0, np.nan, np.nan, 0]], equal_nan=True)


@pytest.mark.parametrize("stored", [TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN])
def test_quantized_values_stay_quantized(tmp_path, half, stored):
    """Q and DQ with half scales: the scale is read as float32, the numbers keep their type, the result is half."""
    scale = torch.tensor(0.3)
    zero = helper.make_tensor("zero", stored, (), [0])
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["numbers"]),
        helper.make_node("DequantizeLinear", ["numbers", "scale", "zero"], ["restored"]),
        helper.make_node("Cast", ["restored"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes, [half.initializer("scale", scale), zero])
    emulate_half(graph, half.precision)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(graph), strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    assert types["numbers"] == stored
    values = random_values(16, 4)
    exact = half.rounded(values) / half.rounded(scale)
    if stored == TensorProto.FLOAT8E4M3FN:
        numbers = exact.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    else:
        low, high = (-128, 127) if stored == TensorProto.INT8 else (0, 255)
        numbers = exact.round().clamp(low, high)
    expected = half.rounded(numbers * half.rounded(scale))
    assert np.array_equal(run(graph, values.numpy())[0], expected.numpy())


def test_type_attributes_do_not_ask_for_half(tmp_path, half):
    """A cast of integers to half gives float32 numbers that were rounded."""
    nodes = [
        helper.make_node("Cast", ["values"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["half"], to=half.onnx),
        helper.make_node("Mul", ["half", "half"], ["square"]),
        helper.make_node("Cast", ["square"], ["output"], to=FLOAT),
    ]
    graph = save(tmp_path / "graph.onnx", nodes)
    emulate_half(graph, half.precision)
    values = torch.tensor([[1.0, 3.0, 257.0, 2049.0]])
    assert np.array_equal(run(graph, values.numpy())[0], half.rounded(half.rounded(values) ** 2).numpy())


def test_nodes_of_functions_are_named_after_the_call(half):
    """Who reads about a value inside a function learns which node of the graph it belongs to."""
    function = onnx.parser.parse_function(
        '<domain: "local", opset_import: ["" : 22]> Twice (x) => (y) { s = Mul (x, x)  y = Mul (s, s) }'
    )
    nodes = [
        helper.make_node("Cast", ["values"], ["half"], to=half.onnx, name="top/Cast"),
        helper.make_node("Twice", ["half"], ["first"], domain="local", name="a/Twice"),
        helper.make_node("Twice", ["first"], ["second"], domain="local", name="b/Twice"),
        helper.make_node("Cast", ["second"], ["output"], to=FLOAT, name="b/Cast"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("values", FLOAT, (2, 4))],
        [helper.make_tensor_value_info("output", FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    found = [
        node.name
        for node in emulated(model, half.precision).graph.node
        if any(output.endswith(EXACT) for output in node.output)
    ]
    assert found == ["top/Cast", "a/Twice/s", "a/Twice", "b/Twice/s", "b/Twice"]
