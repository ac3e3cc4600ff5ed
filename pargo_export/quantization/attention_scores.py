"""Quantize the product of queries and keys in the tower's attention, for CPUs.

    queries -> Q -> DQ ------------+
    keys ----> Q -> DQ -> Transpose -> MatMul -> Softmax -> MatMul (float)

Both operands are signed and symmetric, also in the dialect `cpu`: with a zero point OpenVINO multiplies them in
floating point, and the pair stands before the transposition of the keys, because behind it (or around an 8-bit one)
OpenVINO's fused attention falls apart. The product of attention weights and values stays float: most weights are smaller
than one of 255 levels, so quantizing it costs 3.6 dB, and saves no time (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from pargo_calibration import QuantRecipe
from pargo_export.bundle import Dialect
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.attention import operand_range, reads_softmax
from pargo_export.quantization.insert_qdq import quantize_value
from pargo_export.quantization.statistics import Observation

__all__ = ["ScoreProduct", "find_score_products", "quantize_tower_scores"]

_PREFIX, _SUFFIX = "tower.", ".attention.core"


@dataclass(frozen=True, eq=False)
class ScoreProduct:
    """The product of queries and keys of one tower block.

    Attributes:
        path: Module path, for example `tower.blocks.3.attention.core`.
        node: The MatMul that reads the queries.
        transpose: The Transpose that reads the keys, in front of it.
    """

    path: str
    node: ir.Node
    transpose: ir.Node

    @property
    def operands(self) -> dict[str, ir.Value]:
        """Queries and keys `[B, H, N, D]`, rotated, as `<path>/query` and `<path>/key`."""
        found = {"query": self.node.inputs[0], "key": self.transpose.inputs[0]}
        return {f"{self.path}/{name}": value for name, value in found.items() if value is not None}


def find_score_products(model: ir.Model) -> list[ScoreProduct]:
    """List the products in the order of the network; none where the attention is one node (`attention_op`)."""
    found = []
    for node in model.graph:
        path = (node.name or "").rpartition("/")[0]
        if node.op_type != "MatMul" or not path.startswith(_PREFIX) or not path.endswith(_SUFFIX):
            continue
        keys = node.inputs[1]
        transpose = None if keys is None else keys.producer()
        if not reads_softmax(node) and transpose is not None and transpose.op_type == "Transpose":
            found.append(ScoreProduct(path, node, transpose))
    return found


def quantize_tower_scores(
    model: ir.Model,
    recipe: QuantRecipe,
    observation: Observation | None,
    dialect: Dialect,
    kept: Collection[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """Quantize queries and keys of the tower in place, as far as the recipe, the dialect and the calibration allow.

    Args:
        model: Changed in place.
        recipe: Says whether, and has the range method.
        observation: What calibration saw.
        dialect: `tensorrt` has no such products.
        kept: Linears that stay in float; where the output projection does, the attention does too.

    Returns:
        The quantized attentions by module path, and for those that calibration did not see the reason why not.

    Raises:
        CalibrationError: The recipe insists, and calibration did not see the operands.
        QuantizationError: The recipe insists, and the dialect or the graph has no such products.
    """
    wanted = recipe.attention.tower_scores
    if wanted == "off" or (wanted == "where_possible" and dialect != "cpu"):
        return [], {}
    products = find_score_products(model)
    if wanted == "on" and (dialect != "cpu" or not products):
        reason = (
            f"the dialect {dialect!r} has none: TensorRT's fused INT8 attention ends at 512 keys"
            if dialect != "cpu"
            else "in this graph each attention is one node; export it with attention 'fused' or 'structured'"
        )
        raise QuantizationError(
            f"recipe {recipe.name!r} insists on quantized attention scores of the tower, but {reason}; or set "
            "tower_scores to 'where_possible'"
        )
    quantized: list[str] = []
    left: dict[str, str] = {}
    for product in products:
        if f"{product.path.removesuffix('.core')}.output" in kept:
            continue
        if observation is None or any(name not in observation.activations for name in product.operands):
            left[product.path] = (
                "calibration did not see its queries and keys; calibrate again to quantize it"
            )
            continue
        _quantize(model.graph, product, recipe, observation)
        quantized.append(product.path)
    if left and wanted == "on":
        raise CalibrationError(
            f"calibration did not see the queries and keys of {next(iter(left))}, which recipe {recipe.name!r} insists "
            "on quantizing; calibrate again (pargo-export calibrate BUNDLE --data ... --force)"
        )
    return quantized, left


def _quantize(graph: ir.Graph, product: ScoreProduct, recipe: QuantRecipe, observation: Observation) -> None:
    for reader, (name, value) in zip(
        (product.node, product.transpose), product.operands.items(), strict=True
    ):
        value_range = operand_range(observation.activations[name].plain, recipe, symmetric=True)
        reader.replace_input_with(0, quantize_value(graph, value, value_range, "int8"))
