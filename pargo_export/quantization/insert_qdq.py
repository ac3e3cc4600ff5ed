"""Write quantization into a graph: QuantizeLinear and DequantizeLinear around the linears.

    activation -> Q -> DQ -+-> MatMul -> Add(bias) -> ...
    weight (stored 8-bit) -> DQ -+

Each activation has one Q and one DQ, which all quantized linears that read it share; other readers keep the
float values. The product's output stays float: the pattern that TensorRT fuses into an integer GEMM with float
output, and that ONNX Runtime turns into `MatMulIntegerToFloat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_calibration.ranges import Range, quantize_weight, scale_and_zero_point, weight_scales
from pargo_export.errors import QuantizationError
from pargo_export.quantization.linears import Linear, finite_weight

__all__ = ["ActivationDType", "quantize_activation", "quantize_value", "quantize_weights"]

ActivationDType = Literal["int8", "uint8", "float8e4m3"]
WeightDType = Literal["int8", "float8e4m3"]

_NUMPY: dict[str, type] = {"int8": np.int8, "uint8": np.uint8, "float8e4m3": ml_dtypes.float8_e4m3fn}
_FLOAT8_OPSET = 19


@dataclass(frozen=True)
class _Affine:
    """Scale and zero point as constants of the graph."""

    scale: ir.Value
    zero_point: ir.Value


def quantize_activation(
    graph: ir.Graph, linears: list[Linear], value_range: Range, dtype: ActivationDType
) -> None:
    """Put one Q and one DQ between an activation and the linears that read it.

    Args:
        graph: Changed in place.
        linears: The quantized linears that read the activation.
        value_range: Its range.
        dtype: What the activation becomes.
    """
    dequantized = quantize_value(graph, linears[0].activation, value_range, dtype)
    for linear in linears:
        linear.node.replace_input_with(0, dequantized)


def quantize_value(graph: ir.Graph, value: ir.Value, value_range: Range, dtype: ActivationDType) -> ir.Value:
    """Add a Q and a DQ behind `value` and return the dequantized one; no reader is changed."""
    name = value.name
    scale, zero_point = scale_and_zero_point(value_range, dtype)
    rounded = _round_up(np.atleast_1d(scale), _float_dtype(value))
    affine = _Affine(
        _constant(graph, f"{name}/scale", rounded.reshape(())),
        _constant(graph, f"{name}/zero_point", np.asarray(zero_point, _NUMPY[dtype])),
    )
    quantized = ir.node(
        "QuantizeLinear", [value, affine.scale, affine.zero_point], name=f"{name}/QuantizeLinear"
    )
    restored = ir.node(
        "DequantizeLinear",
        [quantized.outputs[0], affine.scale, affine.zero_point],
        name=f"{name}/DequantizeLinear",
    )
    _describe(quantized.outputs[0], f"{name}/quantized", affine.zero_point.dtype, value.shape)
    _describe(restored.outputs[0], f"{name}/dequantized", value.dtype, value.shape)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantized, restored])
    else:
        graph.insert_after(producer, [quantized, restored])
    return restored.outputs[0]


def quantize_weights(
    graph: ir.Graph, linear: Linear, method: Literal["max", "mse"], dtype: WeightDType
) -> None:
    """Store the weight of a linear with 8 bits and dequantize it, one scale per output channel.

    Raises:
        QuantizationError: The weight holds NaN or infinity.
    """
    weight, axis = linear.node.inputs[1], linear.output_axis
    assert weight is not None  # noqa: S101 - a linear has a weight
    values = finite_weight(weight)
    float_dtype = _float_dtype(weight)
    matrix = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    scales = _round_up(weight_scales(matrix, 1, method, dtype), float_dtype)
    numbers = quantize_weight(matrix, scales.astype(np.float32), 1, dtype)
    moved = [size for index, size in enumerate(values.shape) if index != axis]
    stored = np.ascontiguousarray(np.moveaxis(numbers.reshape(*moved, -1), -1, axis))
    affine = _Affine(
        _constant(graph, f"{weight.name}/scale", scales),
        _constant(graph, f"{weight.name}/zero_point", np.zeros(scales.shape, _NUMPY[dtype])),
    )
    quantized = _constant(graph, f"{weight.name}/quantized", stored)
    restored = ir.node(
        "DequantizeLinear",
        [quantized, affine.scale, affine.zero_point],
        {"axis": axis},
        name=f"{weight.name}/DequantizeLinear",
    )
    _describe(restored.outputs[0], f"{weight.name}/dequantized", weight.dtype, weight.shape)
    graph.insert_before(linear.node, restored)
    linear.node.replace_input_with(1, restored.outputs[0])
    if not weight.uses():
        graph.initializers.pop(weight.name or "", None)


def _float_dtype(value: ir.Value) -> np.dtype[np.generic]:
    """Dtype of the float part, which the scale must have too.

    Raises:
        QuantizationError: The type is unknown or not a float type.
    """
    if value.dtype not in {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}:
        raise QuantizationError(
            f"{value.name!r} is {value.dtype}, expected float32, float16 or bfloat16; export the graph again"
        )
    return np.dtype(value.dtype.numpy())


def _round_up(scales: NDArray[np.float32], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Convert scales to the float type of the graph, never downwards: what was in range stays in range."""
    rounded = scales.astype(dtype)
    low = rounded.astype(np.float32) < scales
    if low.any():
        rounded[low] = np.nextafter(rounded[low], np.asarray(np.inf, dtype))
    return rounded


def _constant(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _describe(value: ir.Value, name: str, dtype: ir.DataType | None, shape: ir.Shape | None) -> None:
    value.name, value.shape = name, shape
    value.type = None if dtype is None else ir.TensorType(dtype)
