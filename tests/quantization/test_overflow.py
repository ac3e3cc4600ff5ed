"""The watch for values that a half precision cannot hold."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph.exports import run
from onnx import TensorProto, helper, numpy_helper

from pargo_export.errors import QuantizationError
from pargo_export.graph.save import save_graph
from pargo_export.quantization.half import convert_to_half
from pargo_export.quantization.overflow import watch_overflow

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture
def float16_graph(exported_bundle, tmp_path):
    """Return a function that writes a float16 graph of the golden case after an edit of its weights."""

    def make(edit=lambda _: None, precision="float16"):
        model = ir.load(exported_bundle / "onnx/fp32.onnx")
        convert_to_half(model, precision)
        path = tmp_path / "watched" / "graph.onnx"
        path.parent.mkdir(exist_ok=True)
        save_graph(model, path)
        proto = onnx.load(path)
        edit({tensor.name: tensor for tensor in proto.graph.initializer})
        onnx.save(proto, path)
        return path

    return make


def change(tensor, function):
    """Apply a function to the numbers of an initializer, in place."""
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(function(values).astype(values.dtype), tensor.name))


def photographs(graph, count=2):
    """Return named inputs."""
    sizes = [axis.dim_value for axis in onnx.load(graph).graph.input[0].type.tensor_type.shape.dim][1:]
    generator = np.random.default_rng(7)
    return [(f"{n}.jpg", generator.standard_normal((1, *sizes), dtype=np.float32)) for n in range(count)]


def arithmetic(path, nodes, initializers=()):
    """Write a graph of float16 nodes between `x`, `[1, 4]`, and `y`."""
    cast = [helper.make_node("Cast", ["values"], ["x"], to=HALF, name="top/Cast")]
    back = [helper.make_node("Cast", ["y"], ["output"], to=FLOAT, name="end/Cast")]
    graph = helper.make_graph(
        [*cast, *nodes, *back],
        "test",
        [helper.make_tensor_value_info("values", FLOAT, (1, 4))],
        [helper.make_tensor_value_info("output", FLOAT, None)],
        initializer=list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_a_sound_model_has_no_findings(float16_graph):
    """Nothing is reported, the largest values are listed in order, and no file is left behind."""
    graph = float16_graph()
    before = {path: path.read_bytes() for path in graph.parent.iterdir()}
    report = watch_overflow(graph, "float16", photographs(graph))
    assert report.findings == report.warnings == ()
    assert report.message == ""
    assert report.num_images == 2
    values = [peak.value for peak in report.largest]
    assert values == sorted(values, reverse=True)
    assert len(values) == 10
    assert report.largest[0].fraction == values[0] / 65504
    assert {path: path.read_bytes() for path in graph.parent.iterdir()} == before


def test_the_first_overflow_is_the_origin(float16_graph):
    """With the gate of one block scaled up, its product is named first, with the value of the float32 product."""
    name = "tower.blocks.1.mlp.gate_up.merged"

    def enlarge(weights):
        change(weights[f"{name}.weight"], lambda values: values.astype(np.float32) * 500)

    graph = float16_graph(enlarge)
    images = photographs(graph)
    report = watch_overflow(graph, "float16", images)
    first = report.findings[0]
    assert (first.tensor, first.node) == ("tower.blocks.1.mlp/Mul_2", "tower.blocks.1.mlp/Mul_2")
    assert [finding.origin for finding in report.findings] == [True] + [False] * (len(report.findings) - 1)
    assert len(report.findings) > 1  # infinity spreads

    probe = onnx.load(graph)
    for inner in ("tower.blocks.1.mlp/Mul", f"{name}/Split.1"):
        probe.graph.output.append(helper.make_tensor_value_info(inner, HALF, None))
    products = []
    for _, values in images:
        _, gate, up = run(probe.SerializeToString(), values)
        products.append(np.abs(gate.astype(np.float32) * up.astype(np.float32)).max())
    assert first.index == int(np.argmax(products))
    assert first.image == f"{first.index}.jpg"
    assert first.value == pytest.approx(
        max(products), rel=5e-3
    )  # float16 kernels of the CPU round a little otherwise
    line = report.message.splitlines()[0]
    assert line.startswith(
        f"tower.blocks.1.mlp/Mul_2 reaches {first.value:.6g} (float16 holds 65504) on images["
    )
    assert f"{first.image!r}; keep that block in float32 or use bfloat16" in line
    assert f"({len(report.findings) - 1} later values are affected too)" in line


def test_bfloat16_holds_the_same_network(float16_graph):
    """What overflows float16 is no finding in bfloat16: the advice is worth taking."""

    def enlarge(weights):
        change(
            weights["tower.blocks.1.mlp.gate_up.merged.weight"],
            lambda values: values.astype(np.float32) * 500,
        )

    graph = float16_graph(enlarge, "bfloat16")
    assert watch_overflow(graph, "bfloat16", photographs(graph)).findings == ()


def test_values_inside_functions_are_watched(float16_graph):
    """An overflow of the attention scores is named after the function's node and the value in its body."""

    def enlarge(weights):
        change(
            weights["projector.layers.1.self_attention.qkv.merged.bias"], lambda bias: np.full_like(bias, 300)
        )

    graph = float16_graph(enlarge)
    report = watch_overflow(graph, "float16", photographs(graph))
    assert report.findings[0].node == (
        "projector.layers.1.self_attention.core/BlockDiagonalAttention/partial_raw"
    )
    assert report.findings[0].value > 65504


def test_nan_weights_are_found(float16_graph):
    """One NaN in a weight, at a place that a maximum would pass over, is found in the product that reads it."""

    def spoil(weights):
        def put_nan(values):
            values = values.copy()
            values[-1] = np.nan
            return values

        change(weights["tower.blocks.1.attention.output.bias"], put_nan)

    graph = float16_graph(spoil)
    report = watch_overflow(graph, "float16", photographs(graph, 1))
    assert report.findings[0].tensor == "tower.blocks.1.attention.output/Add"
    assert math.isnan(report.findings[0].value)
    assert report.message.startswith(
        "tower.blocks.1.attention.output/Add holds NaN on images[0] '0.jpg'; check"
    )


def test_the_image_that_overflows_is_named(tmp_path):
    """The largest value over all images counts, with its sign left out, and its image is named."""
    graph = arithmetic(tmp_path / "g.onnx", [helper.make_node("Mul", ["x", "x"], ["y"], name="a/Mul")])
    images = [
        (name, np.array([[1, 2, value, 3]], np.float32))
        for name, value in (("low.jpg", 10), ("street.jpg", -300), ("tree.jpg", 260))
    ]
    (finding,) = watch_overflow(graph, "float16", iter(images)).findings
    assert (finding.value, finding.image, finding.index, finding.origin) == (90000, "street.jpg", 1, True)


@pytest.mark.parametrize(
    ("value", "found", "warned"), [(65519, 0, 1), (65520, 1, 0), (32760, 0, 1), (32752, 0, 0)]
)
def test_the_limit_is_what_rounds_to_infinity(tmp_path, value, found, warned):
    """65519 rounds to the largest float16, 65520 to infinity; above half the limit is a warning."""
    root = np.array([64, 1, 1, 1], np.float32)
    terms = helper.make_node("MatMul", ["x", "weight"], ["y"], name="a/MatMul")
    column = np.array([[value // 64], [value % 64], [0], [0]], np.float16)
    graph = arithmetic(tmp_path / "g.onnx", [terms], [numpy_helper.from_array(column, "weight")])
    report = watch_overflow(graph, "float16", [("a.jpg", root[None])])
    assert [item.value for item in report.findings] == [value] * found
    assert [item.value for item in report.warnings] == [value] * warned
    assert bool(report.message) == bool(found or warned)
    if warned:
        assert f"a/MatMul reaches {value}, {value / 65504:.0%} of what float16 holds" in report.message


def test_a_mask_is_no_overflow_but_scores_under_it_are_watched(tmp_path):
    """Minus infinity of a mask is meant; a score that overflows beside it is found."""
    mask = numpy_helper.from_array(np.array([[0, 0, -np.inf, -np.inf]], np.float16), "mask")
    scores = helper.make_node("Mul", ["x", "x"], ["scores"], name="a/Mul")
    nodes = [
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="b/Add"),
        helper.make_node("Mul", ["masked", "two"], ["scaled"], name="c/Mul"),
        helper.make_node("Softmax", ["scaled"], ["y"], name="d/Softmax"),
    ]
    two = numpy_helper.from_array(np.array(2, np.float16), "two")
    graph = arithmetic(tmp_path / "g.onnx", [scores, *nodes], [mask, two])
    sound = watch_overflow(graph, "float16", [("a.jpg", np.array([[10, 20, 30, 40]], np.float32))])
    assert (sound.findings, sound.largest[0].value) == ((), 1600)
    report = watch_overflow(graph, "float16", [("a.jpg", np.array([[-200, 20, 30, 40]], np.float32))])
    assert [(item.tensor, item.value) for item in report.findings][:1] == [("scaled", 80000)]


def test_the_mask_of_a_dense_graph_is_no_overflow(exported_bundle, tmp_path):
    """An exported graph with additive masks, weights in a file, has no findings."""
    model = ir.load(exported_bundle / "onnx/external.onnx")
    convert_to_half(model, "float16")
    ir.save(model, tmp_path / "g.onnx", external_data="g.data", size_threshold_bytes=512)
    report = watch_overflow(tmp_path / "g.onnx", "float16", photographs(tmp_path / "g.onnx"))
    assert report.findings == ()
    assert report.largest[0].value > 1


def test_what_cannot_be_watched_is_refused(exported_bundle, float16_graph):
    """A float32 graph, no images, and a fraction that is none are errors."""
    with pytest.raises(QuantizationError, match="computes nothing in float16"):
        watch_overflow(exported_bundle / "onnx/fp32.onnx", "float16", [])
    graph = float16_graph()
    with pytest.raises(QuantizationError, match="no images"):
        watch_overflow(graph, "float16", [])
    with pytest.raises(QuantizationError, match="near is 0"):
        watch_overflow(graph, "float16", photographs(graph), near=0)
