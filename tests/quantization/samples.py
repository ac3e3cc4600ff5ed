"""Photographs, small graphs and other material for the tests of quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from pargo_calibration import TensorStatistics
from pargo_export.quantization.statistics import ActivationStatistics

__all__ = [
    "QUANTIZATIONS",
    "graph_of",
    "linear_graph",
    "observed",
    "run_model",
    "weight_of",
    "write_photographs",
]

# Names in the bundle `quantized_bundle`, and what makes them.
QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "int8-cpu": {"precision": "int8"},
    "int8-cuda": {"precision": "int8", "target": "cuda"},
    "int8-bf16": {"precision": "int8", "target": "orin", "float_precision": "bfloat16"},
    "int8-fp32": {"precision": "int8", "target": "rtx", "float_precision": "float32"},
    "weights-cpu": {"precision": "int8_weight_only"},
    "weights-rtx": {"precision": "int8_weight_only", "target": "rtx"},
    "fp8": {"precision": "fp8", "target": "thor"},
    "fp16": {"precision": "float16", "target": "cuda"},
    "bf16-converted": {"precision": "bfloat16", "target": "thor", "base": "fp32"},
}
_CROPS = 4
_SIZES = ((128, 96), (90, 120))


def write_photographs(folder: Path) -> Path:
    """Write crops of four photographs, PNG and JPEG, and return the folder."""
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = getattr(data, name)()
        for index in range(_CROPS):
            height, width = _SIZES[index % 2]
            crop = picture[40 * index :, 60 * index :][:height, :width]
            suffix = ("png", "jpg")[index // 2]
            Image.fromarray(crop).save(folder / f"{name}-{index}.{suffix}")
    return folder


def graph_of(
    nodes: list[ir.Node],
    inputs: list[ir.Value],
    weights: dict[str, NDArray[np.generic]],
    *,
    outputs: list[ir.Value] | None = None,
) -> ir.Model:
    """Return a model of opset 20 whose initializers are the values called as in `weights`."""
    values = {value.name: value for node in nodes for value in node.inputs if value is not None}
    initializers = []
    for name, array in weights.items():
        value = values[name]
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)
        initializers.append(value)
    graph = ir.Graph(
        inputs,
        outputs or list(nodes[-1].outputs),
        nodes=nodes,
        initializers=initializers,
        opset_imports={"": 20},
        name="sample",
    )
    for output in graph.outputs:
        output.type = output.type or ir.TensorType(inputs[0].dtype)
    return ir.Model(graph, ir_version=10)


def linear_graph(
    operator: str, weight: NDArray[np.float32], dtype: ir.DataType = ir.DataType.FLOAT, **attributes: int
) -> ir.Model:
    """Return `x -> block/linear/<operator>` with a residual that reads `x` too."""
    rank = 4 if operator == "Conv" else 2
    axis = 1 if operator == "Conv" or attributes.get("transB") else 0
    shape: list[int | None] = [None] * rank
    shape[1] = weight.shape[axis]
    x = ir.val("x", dtype=dtype, shape=ir.Shape(shape))
    w = ir.Value(name="block.linear.weight")
    product = ir.node(operator, [x, w], dict(attributes), name=f"block.linear/{operator}")
    residual = ir.node("Identity", [x], name="block/Identity")
    product.outputs[0].name, residual.outputs[0].name = "y", "residual"
    outputs = [product.outputs[0], residual.outputs[0]]
    for output in outputs:
        output.type = ir.TensorType(dtype)
        output.shape = ir.Shape([None] * rank)
    return graph_of(
        [product, residual], [x], {"block.linear.weight": weight.astype(dtype.numpy())}, outputs=outputs
    )


def run_model(model: ir.Model, *values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """Compute a graph as it is written, without any fusion."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, values, strict=True)))


def weight_of(model: ir.Model, name: str) -> NDArray[np.generic]:
    """Return a constant of the graph."""
    return model.graph.initializers[name].const_value.numpy()


def observed(values: NDArray[np.float32], factors: NDArray[np.float32] | None = None) -> ActivationStatistics:
    """Return statistics of values `[..., C]`."""
    plain = TensorStatistics(values.shape[-1])
    plain.update(values)
    smoothed = None
    if factors is not None:
        smoothed = TensorStatistics(values.shape[-1])
        smoothed.update(values / factors)
    return ActivationStatistics(plain, smoothed, factors)
