"""Q and DQ around linears: where they stand, what they hold, what they compute."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from quantization.samples import graph_of, linear_graph, observed, run_model, weight_of
from tolerances import TOLERANCES

from pargo_calibration import Range, compute_range
from pargo_export.errors import QuantizationError
from pargo_export.quantization.insert_qdq import quantize_activation, quantize_value, quantize_weights
from pargo_export.quantization.linears import find_linears

RANDOM = np.random.default_rng(20240901)
NAME = "block.linear.weight"
X = RANDOM.standard_normal((7, 12)).astype(np.float32) * 3 + 0.5
WEIGHT = RANDOM.standard_normal((12, 5)).astype(np.float32)


def operators(model):
    """Return the operators in order."""
    return [node.op_type for node in model.graph]


def quantized_linear(operator, weight, dtype="uint8", x=X, **attributes):
    """Return a graph with one linear, weight and activation quantized."""
    model = linear_graph(operator, weight, **attributes)
    (linear,) = find_linears(model)
    value_range = compute_range(observed(x).plain, "max", symmetric=dtype != "uint8")
    quantize_activation(model.graph, [linear], value_range, dtype)
    quantize_weights(model.graph, linear, "max", "float8e4m3" if dtype == "float8e4m3" else "int8")
    model.graph.sort()
    return model


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_product_is_that_of_integers(dtype):
    """The graph gives scale_x * scale_w * (q_x - zero) @ q_w, the integers as NumPy rounds them."""
    model = quantized_linear("MatMul", WEIGHT, dtype)
    scale, zero = weight_of(model, "x/scale"), weight_of(model, "x/zero_point")
    info = np.iinfo(dtype)
    quantized = np.clip(np.rint(X / scale) + zero, info.min, info.max).astype(np.int64) - int(zero)
    stored = weight_of(model, f"{NAME}/quantized").astype(np.int64)
    expected = (quantized @ stored) * (scale.astype(np.float64) * weight_of(model, f"{NAME}/scale"))
    found, residual = run_model(model, X)
    assert zero.dtype == dtype
    assert (zero != 0) == (dtype == "uint8")
    error = np.abs(found - expected).max()
    assert error <= TOLERANCES["quantize-integers"].value, f"{error:.3g}"
    assert 0.01 < np.abs(found - X @ WEIGHT).max() < 0.5
    assert np.array_equal(residual, X)


def test_one_pair_for_all_readers():
    """Linears that read one activation share its Q and DQ; a residual keeps the float values."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([7, 12]))
    nodes = [
        ir.node("MatMul", [x, ir.Value(name=f"w{index}")], name=f"block.part{index}/MatMul")
        for index in range(3)
    ]
    nodes.append(ir.node("Add", [x, x], name="block/Add"))
    outputs = [node.outputs[0] for node in nodes]
    for output in outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
    model = graph_of(nodes, [x], {f"w{index}": WEIGHT for index in range(3)}, outputs=outputs)
    linears = find_linears(model)
    quantize_activation(model.graph, linears[:2], Range(-8, 8), "int8")
    assert operators(model).count("QuantizeLinear") == operators(model).count("DequantizeLinear") == 1
    quantize, restore = list(model.graph)[:2]
    assert list(restore.inputs[1:]) == list(quantize.inputs[1:])
    assert [node.inputs[0] is restore.outputs[0] for node in nodes] == [True, True, False, False]
    found = run_model(model, X)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    assert np.array_equal(found[3], 2 * X)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "axis"),
    [
        ("MatMul", (12, 5), {}, 1),
        ("Gemm", (12, 5), {}, 1),
        ("Gemm", (5, 12), {"transB": 1}, 0),
        ("Conv", (5, 3, 2, 2), {}, 0),
    ],
    ids=["matmul", "gemm", "gemm-transposed", "conv"],
)
def test_one_scale_for_each_output_channel(operator, shape, attributes, axis):
    """The stored weight keeps its layout; each output channel has its own scale, its largest value at 127."""
    weight = RANDOM.standard_normal(shape).astype(np.float32)
    channels = np.moveaxis(weight, axis, 0).reshape(5, -1)
    channels *= np.logspace(-3, 2, 5, dtype=np.float32)[:, None]
    weight = np.moveaxis(channels.reshape(np.moveaxis(weight, axis, 0).shape), 0, axis)
    model = linear_graph(operator, weight, **attributes)
    (linear,) = find_linears(model)
    assert linear.output_axis == axis
    x = RANDOM.standard_normal((2, 3, 4, 4) if operator == "Conv" else (2, 12)).astype(np.float32)
    expected = run_model(model, x)
    quantize_weights(model.graph, linear, "max", "int8")
    stored = weight_of(model, f"{NAME}/quantized")
    assert stored.dtype == np.int8
    assert stored.shape == weight.shape
    rest = tuple(index for index in range(weight.ndim) if index != axis)
    assert (np.abs(stored.astype(int)).max(axis=rest) == 127).all()
    scales = weight_of(model, f"{NAME}/scale")
    assert scales.shape == (5,)
    assert np.array_equal(scales, np.abs(weight).max(axis=rest) / np.float32(127))
    assert linear.node.inputs[1].producer().attributes["axis"].value == axis
    assert NAME not in model.graph.initializers
    model.graph.sort()
    found = run_model(model, x)
    output = np.moveaxis(found[0] - expected[0], 1, 0).reshape(5, -1)
    size = np.moveaxis(expected[0], 1, 0).reshape(5, -1)
    assert (np.abs(output).max(axis=1) < 0.05 * np.abs(size).max(axis=1)).all()


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@pytest.mark.parametrize("quantized", ["int8", "float8e4m3"])
def test_scales_have_the_float_type_rounded_up(dtype, quantized):
    """Scales take the type of the graph and never get smaller, so that what was in range stays in range."""
    weight = RANDOM.standard_normal((12, 64)).astype(np.float32)
    model = linear_graph("MatMul", weight, dtype)
    (linear,) = find_linears(model)
    largest = {"int8": 127, "float8e4m3": 448}[quantized]
    quantize_activation(model.graph, [linear], Range(-5.3, 5.3), quantized)
    quantize_weights(model.graph, linear, "max", quantized)
    rounded = weight.astype(dtype.numpy()).astype(np.float32)
    exact = np.append(np.abs(rounded).max(axis=0), np.float32(5.3)).astype(np.float64) / largest
    scales = [weight_of(model, f"{NAME}/scale"), weight_of(model, "x/scale")]
    assert {scale.dtype for scale in scales} == {np.dtype(dtype.numpy())}
    found = np.append(scales[0], scales[1]).astype(np.float64)
    step = {ir.DataType.FLOAT16: 2.0**-10, ir.DataType.BFLOAT16: 2.0**-7}[dtype]
    assert (found >= exact * (1 - 1e-7)).all()
    assert (found <= exact * (1 + step)).all()
    nearest = exact.astype(dtype.numpy()).astype(np.float64)
    assert (nearest < exact * (1 - 1e-7)).any()  # rounding to nearest would have failed
    stored = weight_of(model, f"{NAME}/quantized").astype(np.float32)
    error = np.abs(stored * scales[0].astype(np.float32) - rounded).max(axis=0)
    if quantized == "int8":
        assert (error <= scales[0].astype(np.float32) * 0.5001).all()
    assert linear.node.inputs[0].dtype == linear.node.inputs[1].dtype == dtype


def test_fp8_has_its_own_numbers():
    """FP8 activations and weights are E4M3, zero points are 0, and the graph needs opset 19 at most."""
    model = quantized_linear("MatMul", WEIGHT, "float8e4m3")
    assert weight_of(model, f"{NAME}/quantized").dtype == ml_dtypes.float8_e4m3fn
    for name in ("x/zero_point", f"{NAME}/zero_point"):
        zero = weight_of(model, name)
        assert zero.dtype == ml_dtypes.float8_e4m3fn
        assert not zero.astype(np.float32).any()
    found, _ = run_model(model, X)
    activation = (X / weight_of(model, "x/scale")).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    weight = weight_of(model, f"{NAME}/quantized").astype(np.float32) * weight_of(model, f"{NAME}/scale")
    error = np.abs(found - activation * weight_of(model, "x/scale") @ weight).max()
    assert error <= TOLERANCES["quantize-integers"].value, f"{error:.3g}"


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float8e4m3"])
def test_checker_takes_the_graph(operator, dtype):
    """The strict ONNX checker infers every type and shape."""
    model = ir.to_proto(quantized_linear(operator, WEIGHT, dtype))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weight_that_is_not_finite_is_refused(bad):
    """The message names the weight and counts what is wrong."""
    weight = WEIGHT.copy()
    weight[3, 2] = weight[4, 4] = bad
    model = linear_graph("MatMul", weight)
    with pytest.raises(
        QuantizationError, match=rf"'{NAME}' holds 2 NaN or infinite values; check the checkpoint"
    ):
        quantize_weights(model.graph, find_linears(model)[0], "max", "int8")


def test_channel_of_zeros_stays_zero():
    """An output channel without a weight has scale 1 and gives exactly 0."""
    weight = WEIGHT.copy()
    weight[:, 1] = 0
    model = quantized_linear("MatMul", weight)
    assert weight_of(model, f"{NAME}/scale")[1] == 1
    assert not run_model(model, X)[0][:, 1].any()


def test_zero_is_exact_in_an_asymmetric_range():
    """Padding and dead channels stay 0, whatever the range."""
    model = linear_graph("MatMul", WEIGHT)
    (linear,) = find_linears(model)
    quantize_activation(model.graph, [linear], Range(-0.731, 5.9), "uint8")
    assert not run_model(model, np.zeros_like(X))[0].any()


def test_integer_values_are_refused():
    """Only float values can be quantized."""
    x = ir.val("x", dtype=ir.DataType.INT64, shape=ir.Shape([1]))
    model = graph_of([ir.node("Neg", [x], name="a/Neg")], [x], {})
    with pytest.raises(QuantizationError, match="'x' is INT64, expected float32, float16 or bfloat16"):
        quantize_value(model.graph, x, Range(-1, 1), "int8")
