"""Quantize the two products of the projector's self-attention, where a recipe asks for it.

The fused node is written out first, for this one attention: its products are then nodes of the graph. Queries, keys
and values have the ranges that calibration saw at the inputs of the node; attention weights lie in [0, 1] by
definition. Cross-attention is not touched: TensorRT's fused INT8 attention ends at 512 keys, it has 576. Nor is the
tower's attention here: `attention_scores.py`.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from pargo_calibration import QuantRecipe, Range, TensorStatistics, compute_range
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.insert_qdq import ActivationDType, quantize_value
from pargo_export.quantization.statistics import Observation

__all__ = ["operand_range", "quantize_self_attention", "reads_softmax"]

_FUNCTION = "BlockDiagonalAttention"
_WEIGHTS = Range(0.0, 1.0)  # of a softmax


def quantize_self_attention(
    model: ir.Model,
    recipe: QuantRecipe,
    observation: Observation | None,
    dtype: ActivationDType,
    kept: Collection[str] = (),
) -> list[str]:
    """Write out the fused self-attentions and quantize the operands of their products, in place.

    Args:
        model: Changed in place.
        recipe: Has the range method.
        observation: What calibration saw.
        dtype: What the operands become.
        kept: Linears that stay in float; where the output projection does, the attention does too.

    Returns:
        The quantized attentions, by module path.

    Raises:
        CalibrationError: Calibration did not see their inputs.
        QuantizationError: The graph has no fused self-attention.
    """
    nodes = {(node.name or "").rpartition("/")[0]: node for node in model.graph if node.op_type == _FUNCTION}
    if not nodes:
        raise QuantizationError(
            f"recipe {recipe.name!r} quantizes the projector's self-attention, but the graph has no "
            f"pargo::{_FUNCTION} node; export it with attention 'fused', or turn projector_self off"
        )
    if observation is None or any(f"{path}/key" not in observation.activations for path in nodes):
        raise CalibrationError(
            "calibration did not see the inputs of the projector's self-attention; calibrate a variant with attention "
            "'fused'"
        )
    dtypes = {path: node.inputs[0].dtype for path, node in nodes.items() if node.inputs[0] is not None}
    wanted = {path for path in nodes if f"{path.removesuffix('.core')}.output" not in kept}
    for path, written_out in _write_out(model, nodes).items():
        if path not in wanted:
            continue
        seen = {name: observation.activations[f"{path}/{name}"].plain for name in ("query", "key", "value")}
        _quantize_products(model.graph, written_out, seen, recipe, dtype, dtypes[path])
    return [path for path in nodes if path in wanted]


def _write_out(model: ir.Model, nodes: dict[str, ir.Node]) -> dict[str, list[ir.Node]]:
    """Inline the function nodes; return what takes their places, named after the modules."""
    ends = {str(node.outputs[0].name): path for path, node in nodes.items()}
    before = set(model.graph)
    common_passes.InlinePass(criteria=lambda function: function.name == _FUNCTION)(model)
    written_out: dict[str, list[ir.Node]] = {}
    current: list[ir.Node] = []
    for node in [node for node in model.graph if node not in before]:
        current.append(node)
        path = ends.get(str(node.outputs[0].name))  # the last node of a body gives the value of the call
        if path is not None:
            written_out[path], current = current, []
    for path, body in written_out.items():
        for index, node in enumerate(body):
            node.name = f"{path}/{node.op_type}_{index}"
            for output in node.outputs:
                if str(output.name) not in ends:
                    output.name = f"{node.name}.{output.index()}"
    return written_out


def _quantize_products(
    graph: ir.Graph,
    nodes: list[ir.Node],
    seen: dict[str, TensorStatistics],
    recipe: QuantRecipe,
    dtype: ActivationDType,
    float_dtype: ir.DataType | None,
) -> None:
    symmetric = dtype != "uint8"
    for node in nodes:
        if node.op_type != "MatMul":
            continue
        names = (None, "value") if reads_softmax(node) else ("query", "key")
        for index, name in enumerate(names):
            operand = node.inputs[index]
            if operand is None:
                continue
            value_range = _WEIGHTS if name is None else operand_range(seen[name], recipe, symmetric=symmetric)
            if (
                operand.dtype is None and float_dtype is not None
            ):  # types inside a function body are not written down
                operand.dtype = float_dtype
            node.replace_input_with(index, quantize_value(graph, operand, value_range, dtype))


def operand_range(statistics: TensorStatistics, recipe: QuantRecipe, *, symmetric: bool) -> Range:
    """Choose the range of queries, keys or values by the method of the recipe.

    What reads them is no weight, so `output_mse` knows no gain of their channels and clips nothing.

    Args:
        statistics: What calibration saw of them.
        recipe: Has the range method.
        symmetric: Whether the range is.
    """
    rule = recipe.activations
    return compute_range(
        statistics,
        "max" if rule.method == "output_mse" else rule.method,
        symmetric=symmetric,
        percentile=rule.percentile or 99.99,
        grid="fp8" if recipe.precision == "fp8" else "integer",
    )


def reads_softmax(product: ir.Node) -> bool:
    """Whether the left operand of a product is attention weights, possibly cast."""
    value = product.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "Softmax":
            return True
        if producer.op_type not in {"Cast", "CastLike"}:
            return False
        value = producer.inputs[0]
    return False
