"""Small graphs with every way of multiplying, and the variants that ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from bundle.samples import make_variant
from onnx import TensorProto, helper, numpy_helper

from pargo_export.bundle import Quantization, Variant

__all__ = ["FLOATS", "MLP", "QUERY", "chain", "linear", "model_of", "quantized_variant"]

QUERY, MLP = "projector.layers.0.query", "tower.blocks.0.mlp.up"
FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
_NARROW = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def model_of(nodes, inputs, outputs, weights, opset=21) -> onnx.ModelProto:
    """Return a model; inputs and outputs are `(name, type, shape)`."""
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def linear(path: str, x: str, y: str, size: tuple[int, int], dtype: int, **choices: Any):
    """Return nodes and weights of one linear that reads `x` and writes `y`.

    Choices: `weight` and `activation`, `"int8"` or `"fp8"`; `cast_to`, a type that both operands are converted to
    right in front of the product.
    """
    nodes, weights = [], []

    def constant(name, values, kind):
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        weights[-1] = helper.make_tensor(
            name, kind, np.shape(values), np.asarray(values, np.float32).ravel().tolist()
        )
        return name

    def through(node_type, name, value, *more):
        nodes.append(helper.make_node(node_type, [value, *more], [f"{name}.out"], name=name))
        return f"{name}.out"

    a, w = x, f"{path}.weight"
    if narrow := choices.get("activation"):
        scale = constant(f"{path}/scale", 0.1, dtype)
        zero = constant(f"{path}/zero", 0, _NARROW[narrow])
        a = through("QuantizeLinear", f"{path}/QuantizeLinear", a, scale, zero)
        a = through("DequantizeLinear", f"{path}/DequantizeLinear", a, scale, zero)
    if narrow := choices.get("weight"):
        constant(w, np.ones(size), _NARROW[narrow])
        scale = constant(f"{w}/scale", 0.1, dtype)
        zero = constant(f"{w}/zero", 0, _NARROW[narrow])
        w = through("DequantizeLinear", f"{w}/DequantizeLinear", w, scale, zero)
    else:
        constant(w, np.ones(size), dtype)
    if cast_to := choices.get("cast_to"):
        for name, value in (("Cast", a), ("Cast_weight", w)):
            nodes.append(
                helper.make_node("Cast", [value], [f"{path}/{name}.out"], name=f"{path}/{name}", to=cast_to)
            )
        a, w = f"{path}/Cast.out", f"{path}/Cast_weight.out"
    nodes.append(helper.make_node("MatMul", [a, w], [y], name=f"{path}/MatMul"))
    return nodes, weights


def chain(float_precision: str, first: dict[str, Any], second: dict[str, Any]) -> onnx.ModelProto:
    """Return `x [batch, 5, 32] -> MLP (32 -> 64) -> QUERY (64 -> 16) -> y`; the choices are those of `linear`."""
    dtype = FLOATS[float_precision]
    nodes, weights = linear(MLP, "x", "h", (32, 64), dtype, **first)
    middle, dtype_of_h = "h", first.get("cast_to", dtype)
    if dtype_of_h != dtype:
        nodes.append(helper.make_node("Cast", ["h"], ["back"], name="tower.blocks.0/Cast", to=dtype))
        middle = "back"
    more_nodes, more_weights = linear(QUERY, middle, "y", (64, 16), dtype, **second)
    out = second.get("cast_to", dtype)
    return model_of(
        [*nodes, *more_nodes],
        [("x", dtype, ["batch", 5, 32])],
        [("y", out, ["batch", 5, 16])],
        [*weights, *more_weights],
    )


def quantized_variant(
    precision: str, *quantized: str, float_precision: str = "float16", **changes: Any
) -> Variant:
    """Return a variant that says which linears are quantized; without any it is a float variant."""
    made = Quantization(base="fp32", float_precision=float_precision, quantized=quantized)
    return make_variant(precision=precision, quantization=made if quantized else None, **changes)
