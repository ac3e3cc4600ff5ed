"""The linear layers of an exported graph, by the modules that they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_export.errors import QuantizationError

__all__ = ["Linear", "block_of", "find_linears", "finite_weight", "weight_array"]

_BLOCK = re.compile(r"^(tower\.blocks\.\d+|projector\.layers\.\d+)(?=\.|$)")


@dataclass(frozen=True, eq=False)
class Linear:
    """One product with a weight: a linear layer, or the patch embedding.

    Attributes:
        path: Module path, for example `tower.blocks.3.mlp.down`.
        node: The MatMul, Gemm or Conv.
        activation: What it reads.
        weight: The weight, an initializer.
        output_axis: Axis of the output channels in the weight.
    """

    path: str
    node: ir.Node
    activation: ir.Value
    weight: ir.Value
    output_axis: int

    @property
    def block(self) -> str:
        """The block it belongs to: `tower.blocks.3`, `projector.layers.1`, `projector.context`, ..."""
        return block_of(self.path)

    @property
    def num_weights(self) -> int:
        """Elements of the weight; a proxy for the operations per token."""
        return int(np.prod(self.weight.shape.numpy())) if self.weight.shape is not None else 0


def block_of(path: str) -> str:
    """Return the tower block or query layer of a module path, or its first two parts."""
    match = _BLOCK.match(path)
    return match.group(1) if match else ".".join(path.split(".")[:2])


def find_linears(model: ir.Model) -> list[Linear]:
    """List the linears in the order of the network.

    Raises:
        QuantizationError: Two of them have one name, or a product with a weight has none: the graph was not
            made by this package.
    """
    linears: list[Linear] = []
    for node in model.graph:
        found = _weight_of(node)
        if found is None:
            continue
        weight, output_axis = found
        path = (node.name or "").rpartition("/")[0]
        activation = node.inputs[0]
        if not path or activation is None:
            raise QuantizationError(
                f"node {node.name!r} ({node.op_type}) has no module path; expected names such as "
                "'tower.blocks.3.mlp.down/MatMul': quantize a graph that `pargo-export onnx` made"
            )
        linears.append(Linear(path, node, activation, weight, output_axis))
    paths = [linear.path for linear in linears]
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise QuantizationError(f"several products are called {', '.join(repeated)}; export the graph again")
    return linears


def weight_array(weight: ir.Value) -> NDArray[np.float32]:
    """The weight in float32; external data are read now.

    Raises:
        QuantizationError: It has no value, or onnx_ir refuses the file that it lies in.
    """
    if weight.const_value is None:
        raise QuantizationError(f"weight {weight.name!r} has no value; export the graph again")
    try:
        return weight.const_value.numpy().astype(np.float32)
    except ValueError as error:  # for example several hard links, which a deduplicated disk makes
        raise QuantizationError(
            f"weight {weight.name!r} cannot be read: {error}; copy the bundle to plain files of its own (cp -r)"
        ) from error


def finite_weight(weight: ir.Value) -> NDArray[np.float32]:
    """The weight in float32, all of it finite; external data are read now.

    Raises:
        QuantizationError: It holds NaN or infinity, has no value, or cannot be read.
    """
    values = weight_array(weight)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise QuantizationError(
            f"weight {weight.name!r} holds {bad} NaN or infinite values; check the checkpoint that was exported"
        )
    return values


def _weight_of(node: ir.Node) -> tuple[ir.Value, int] | None:
    """Return the weight of a product and the axis of its output channels."""
    if node.domain not in {"", "ai.onnx"} or node.op_type not in {"MatMul", "Gemm", "Conv"}:
        return None
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.shape is None:
        return None
    if node.op_type == "Conv":
        return weight, 0
    if len(weight.shape) != 2:
        return None
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return weight, 0 if transposed else 1
