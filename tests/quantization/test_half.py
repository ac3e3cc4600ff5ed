"""Half-precision graphs made from float32 graphs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from golden_cases import golden_case
from graph.exports import run
from onnx import TensorProto, helper
from shared_exports import export_once
from tolerances import TOLERANCES

from pargo_export.errors import QuantizationError
from pargo_export.graph.emulate_half import emulate_half
from pargo_export.graph.save import save_graph
from pargo_export.quantization.half import convert_to_half

WORDS = {"float16": "fp16", "bfloat16": "bf16"}
HALF_TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
# Every attention form, both inputs, the padded LayerNorm (orin, rtx) and its absence.
# One has a dynamic batch; the others are translated in half the time without.
SOURCES = {
    "fused": ("pargo_w2", {}),
    "structured-padded": ("micro", {"target": "orin", "max_batch": 1}),
    "dense-uint8": ("micro", {"attention": "dense", "input_kind": "uint8", "max_batch": 1}),
    "attention_op": ("pargo_small_variance", {"attention": "attention_op", "max_batch": 1}),
    "attention_op-rtx": ("micro", {"attention": "attention_op", "target": "rtx", "max_batch": 1}),
    "projector": ("micro", {"component": "projector", "max_batch": 1}),
}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Return a function that exports one of `SOURCES` in a precision, once, and gives the graph file."""

    def export(name, precision):
        source, choices = SOURCES[name]
        return export_once(tmp_path_factory, source, precision=precision, **choices).path

    return export


@pytest.fixture(params=SOURCES)
def source(request):
    """Each of `SOURCES` in turn."""
    return request.param


@pytest.fixture(params=WORDS)
def precision(request):
    """Each half precision in turn."""
    return request.param


def converted(graph, path, precision):
    """Convert a graph file, save it checked and return the result with what was saved."""
    result = convert_to_half(ir.load(graph), precision)
    save_graph(result.model, path)
    return result, onnx.load(path)


def element_types(model):
    """Return the type of every value and constant of the graph, as the ONNX checker infers them."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def random_input(path):
    """Return an input of two images for a graph, or of the one that it takes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    generator = np.random.default_rng(5)
    shape = (1 if taken.shape[0] == 1 else 2, *taken.shape[1:])
    if taken.type == "tensor(uint8)":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.standard_normal(shape, dtype=np.float32)


def tiny(nodes, initializers=(), outputs=("output",), opset=20):
    """Return a float32 model with every type inferred."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, (2, 4))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=list(initializers),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def weight(name, values):
    """Return a float32 initializer."""
    return onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)


@pytest.mark.parametrize(
    ("source", "precision"),
    [  # between them every form and both inputs
        ("dense-uint8", "float16"),
        ("fused", "float16"),
        ("attention_op-rtx", "float16"),
        ("structured-padded", "bfloat16"),
    ],
)
def test_it_is_the_graph_that_the_exporter_makes(export, source, precision, tmp_path):
    """Same nodes with the same names, same constants bit for bit, same opset and description."""
    _, model = converted(export(source, "fp32"), tmp_path / "half.onnx", precision)
    twin = onnx.load(export(source, WORDS[precision]))
    assert [(node.name, node.op_type) for node in model.graph.node if node.op_type != "Cast"] == [
        (node.name, node.op_type) for node in twin.graph.node if node.op_type != "Cast"
    ]
    assert {node.name for node in model.graph.node} == {node.name for node in twin.graph.node}

    def constants(proto):
        return Counter((item.data_type, item.raw_data) for item in proto.graph.initializer)

    assert constants(model) == constants(twin)
    assert model.opset_import == twin.opset_import
    assert model.ir_version == twin.ir_version
    assert {item.key: item.value for item in model.metadata_props} == {
        item.key: item.value for item in twin.metadata_props
    }
    assert (model.doc_string, model.graph.doc_string) == (twin.doc_string, twin.graph.doc_string)
    assert model.graph.input == twin.graph.input
    assert model.graph.output == twin.graph.output


def test_every_type_is_what_the_policy_says(export, source, precision, tmp_path):
    """Linears are half, softmax and written-out statistics float32; no cast is double, idle or between equals."""
    result, model = converted(export(source, "fp32"), tmp_path / "half.onnx", precision)
    types, half = element_types(model), HALF_TYPES[precision]
    pairs, float32_nodes = [], 0
    for node in model.graph.node:
        floats = {types[name] for name in node.input if name and types[name] in {TensorProto.FLOAT, half}}
        if node.op_type == "Cast":
            pairs.append((node.input[0], types[node.output[0]]))
            assert types[node.input[0]] != types[node.output[0]], node.name
            continue
        assert len(floats) <= 1, node.name
        wide = ".mlp.norm/" in node.name and node.op_type != "LayerNormalization"
        wide = wide and node.name.rpartition("/")[2] not in {"Mul_4", "Add_2"}
        wide = wide or node.op_type == "Softmax"
        float32_nodes += wide
        assert floats <= {TensorProto.FLOAT if wide else half}, node.name
    assert len(pairs) == len(set(pairs))
    assert result.num_float32_nodes == float32_nodes
    assert result.num_weights == sum(item.data_type == half for item in model.graph.initializer)
    given = onnx.load(export(source, "fp32"), load_external_data=False)
    assert result.num_casts == len(pairs) - sum(node.op_type == "Cast" for node in given.graph.node)


def test_it_computes_what_the_float32_graph_computes(export, source, precision, tmp_path):
    """Within the tolerance of an exported graph of that precision, and not bit for bit."""
    graph, path = export(source, "fp32"), tmp_path / "half.onnx"
    converted(graph, path, precision)
    values = random_input(graph)
    expected = run(graph, values)[0]
    if precision == "bfloat16":  # no kernels on the CPU
        emulate_half(path, precision)
    found = run(path, values)[0]
    assert found.dtype == np.float32
    error = np.abs(found - expected).max()
    assert 0 < error <= TOLERANCES[f"export-{WORDS[precision]}"].value * max(1, expected.std()), (
        f"{error:.3g}"
    )


def test_the_golden_outputs_hold(export, tmp_path):
    """The converted graph is as near to the official outputs as an exported one must be."""
    converted(export("fused", "fp32"), tmp_path / "half.onnx", "float16")
    case = golden_case("pargo_w2")
    error = np.abs(run(tmp_path / "half.onnx", case.images.numpy())[0] - case.io["projected"].numpy()).max()
    assert error <= TOLERANCES["export-fp16"].value, f"{error:.3g}"


def test_external_weights_are_read_and_left_alone(export, tmp_path):
    """A graph with its weights in a file gives the same constants, and the file keeps its bytes."""
    model = onnx.load(export("fused", "fp32"))
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="out.data")
    before = (tmp_path / "out.data").read_bytes()
    _, found = converted(tmp_path / "out.onnx", tmp_path / "half.onnx", "float16")
    _, expected = converted(export("fused", "fp32"), tmp_path / "inside.onnx", "float16")
    assert found.graph.initializer == expected.graph.initializer
    assert (tmp_path / "out.data").read_bytes() == before


def test_only_float32_graphs_are_taken(export, precision):
    """A half graph is refused, a converted one too, and the message says where to start."""
    result = convert_to_half(ir.load(export("fused", "fp32")), precision)
    with pytest.raises(
        QuantizationError, match=rf"'.+' is {precision}, expected a float32 graph; start from"
    ):
        convert_to_half(result.model, "float16")


def test_an_unknown_precision_is_refused(export):
    """The message lists the known ones."""
    with pytest.raises(QuantizationError, match="'int8'; known: float16, bfloat16"):
        convert_to_half(ir.load(export("projector", "fp32")), "int8")


@pytest.mark.parametrize(("largest", "fits"), [(65519.0, True), (65520.0, False), (-np.inf, True)])
def test_weights_beyond_float16_are_refused(largest, fits):
    """The weight and its largest number are named; what rounds into the format and a mask's infinity pass."""
    numbers = np.ones(4, np.float32)
    numbers[2] = largest
    model = tiny(
        [helper.make_node("Mul", ["values", "gain"], ["output"], name="a/Mul")], [weight("gain", numbers)]
    )
    if fits:
        assert convert_to_half(model, "float16").num_weights == 1
        return
    with pytest.raises(
        QuantizationError, match=r"1 of 4 numbers of weight 'gain' .*float16.*65520.*bfloat16"
    ):
        convert_to_half(model, "float16")


def test_bfloat16_holds_what_float16_does_not():
    """A large weight is no error in bfloat16."""
    node = helper.make_node("Mul", ["values", "gain"], ["output"], name="a/Mul")
    result = convert_to_half(tiny([node], [weight("gain", [1e30])]), "bfloat16")
    assert result.model.graph.initializers["gain"].const_value.numpy().astype(np.float32) == pytest.approx(
        1e30, rel=1e-2
    )


def test_weights_are_rounded_to_the_nearest():
    """Ties go to the even neighbour in both formats."""
    for precision, step in (("float16", 2.0**-10), ("bfloat16", 2.0**-7)):
        numbers = [1 + step / 2, 1 + 3 * step / 2, 1 + 0.51 * step, 1]
        node = helper.make_node("Mul", ["values", "gain"], ["output"], name="a/Mul")
        result = convert_to_half(tiny([node], [weight("gain", numbers)]), precision)
        found = result.model.graph.initializers["gain"].const_value.numpy().astype(np.float32)
        assert found.tolist() == [1, 1 + 2 * step, 1 + step, 1]


def test_a_constant_that_both_sides_read_is_kept_in_both_types(tmp_path):
    """The float32 statistics read its exact numbers, the half product rounded ones; several readers share a cast."""
    nodes = [
        helper.make_node("Mul", ["values", "gain"], ["scaled"], name="a/Mul"),
        helper.make_node("ReduceSum", ["scaled", "axes"], ["sum"], name="b/ReduceSum", keepdims=1),
        helper.make_node("Sub", ["scaled", "sum"], ["centred"], name="b/Sub"),
        helper.make_node("Mul", ["centred", "gain"], ["masked"], name="b/Mul"),
        helper.make_node("ReduceSum", ["masked", "axes"], ["total"], name="b/ReduceSum_2", keepdims=1),
        helper.make_node("Mul", ["masked", "total"], ["normalised"], name="b/Mul_2"),
        helper.make_node("Add", ["normalised", "gain"], ["output"], name="b/Add"),
    ]
    axes = onnx.numpy_helper.from_array(np.array([-1]), "axes")
    model = tiny(nodes, [weight("gain", [0.1]), axes])
    result = convert_to_half(model, "float16")
    save_graph(model, tmp_path / "half.onnx")
    gain = {name: value.dtype for name, value in model.graph.initializers.items() if "gain" in name}
    assert gain == {"gain": ir.DataType.FLOAT, "gain/half": ir.DataType.FLOAT16}
    assert result.num_float32_nodes == 5
    casts = [
        (node.name, node.inputs[0].name, node.outputs[0].dtype)
        for node in model.graph
        if node.op_type == "Cast"
    ]
    assert casts == [
        ("graph/Cast", "values", ir.DataType.FLOAT16),
        ("b/Cast", "scaled", ir.DataType.FLOAT),
        ("b/Cast_2", "normalised", ir.DataType.FLOAT16),
        ("b/Cast_3", "b/Add", ir.DataType.FLOAT),
    ]
    assert result.num_casts == 4


def test_constants_inside_the_graph_become_half(tmp_path):
    """A Constant node is treated like a weight."""
    nodes = [
        helper.make_node("Constant", [], ["third"], value_float=1 / 3, name="a/Constant"),
        helper.make_node("Mul", ["values", "third"], ["output"], name="a/Mul"),
    ]
    result = convert_to_half(tiny(nodes), "float16")
    save_graph(result.model, tmp_path / "half.onnx")
    values = np.ones((2, 4), np.float32)
    assert np.array_equal(run(tmp_path / "half.onnx", values)[0], values * np.float32(np.float16(1 / 3)))


def test_missing_types_are_inferred(export, tmp_path):
    """A graph whose inner values carry no types converts like one whose values do."""
    bare = onnx.load(export("structured-padded", "fp32"))
    del bare.graph.value_info[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    _, found = converted(tmp_path / "bare.onnx", tmp_path / "a.onnx", "float16")
    _, expected = converted(export("structured-padded", "fp32"), tmp_path / "b.onnx", "float16")
    assert found.graph.node == expected.graph.node


def test_operators_that_changed_are_not_carried_to_another_opset():
    """bfloat16 needs opset 22; an operator whose definition changed on the way is refused by name."""
    constants = [weight("gain", np.ones(2)), weight("offset", np.zeros(2))]
    nodes = [
        helper.make_node(
            "GroupNormalization", ["values", "gain", "offset"], ["output"], name="n", num_groups=2
        )
    ]
    with pytest.raises(QuantizationError, match="GroupNormalization changed between opset 20 and 22"):
        convert_to_half(tiny(nodes, constants), "bfloat16")


def test_operators_that_make_floats_from_nothing_are_refused():
    """Their type lies in attributes that only they know."""
    nodes = [
        helper.make_node("RandomNormalLike", ["numbers"], ["noise"], name="a/RandomNormalLike", dtype=1),
        helper.make_node("Add", ["values", "noise"], ["output"], name="a/Add"),
    ]
    numbers = onnx.numpy_helper.from_array(np.zeros((2, 4), np.int32), "numbers")
    with pytest.raises(QuantizationError, match="RandomNormalLike makes half values"):
        convert_to_half(tiny(nodes, [numbers]), "float16")


@pytest.mark.parametrize("name", ["fused", "structured-padded"])
def test_tensorrt_rtx_builds_an_engine(export, name, tmp_path):
    """The strongly typed parser takes every node and the builder gives an engine."""
    trt = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt_rtx is not installed; its parser is what is tested"
    )
    _, model = converted(export(name, "fp32"), tmp_path / "half.onnx", "float16")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parsed = parser.parse_from_file(str(tmp_path / "half.onnx"))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    batch, *rest = (axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)
    batches = (batch,) * 3 if batch else (1, 2, 4)
    profile.set_shape(model.graph.input[0].name, *((size, *rest) for size in batches))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 0
