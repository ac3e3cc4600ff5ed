"""From a float32 graph to a half-precision one, with the policy of the exporter.

Weights and activations become half. Softmax and the statistics of a written-out LayerNorm stay float32, with
casts at their borders; a LayerNormalization node takes half values and computes its statistics in float32
(`stash_type`). Inputs and outputs keep their types, so that variants are interchangeable. Bodies of the `pargo::`
functions cast by themselves and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from pargo_export.errors import QuantizationError
from pargo_export.quantization.float32_nodes import float32_nodes

__all__ = ["HalfResult", "convert_to_half"]

_FLOAT = ir.DataType.FLOAT
_HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
_BFLOAT16_OPSET, _BFLOAT16_IR_VERSION = 22, 10  # Conv takes bfloat16 from here on
# Attributes that operators gained up to that opset without a change for the types used here.
_HARMLESS_ATTRIBUTES = {"saturate", "block_size", "output_dtype"}


@dataclass(frozen=True)
class HalfResult:
    """What `convert_to_half` did.

    Attributes:
        model: The model that was given, changed in place.
        num_weights: Constants that became half.
        num_casts: Casts that were inserted.
        num_float32_nodes: Operators that still compute in float32.
    """

    model: ir.Model
    num_weights: int
    num_casts: int
    num_float32_nodes: int


def convert_to_half(model: ir.Model, precision: Literal["float16", "bfloat16"]) -> HalfResult:
    """Convert a float32 graph in place; the float32 weights are read once, one after the other.

    Args:
        model: A graph of the exporter, weights inside or in a mapped file.
        precision: What it becomes.

    Raises:
        QuantizationError: The graph is not float32, a weight does not fit into float16, or an operator is not known
            in the opset that bfloat16 needs.
    """
    half = _HALVES.get(precision)
    if half is None:
        raise QuantizationError(f"precision is {precision!r}; known: {', '.join(_HALVES)}")
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        common_passes.ShapeInferencePass()(model)
    _require_float32(model)
    if half == ir.DataType.BFLOAT16:
        _raise_opset(model)
    float32 = float32_nodes(model.graph)
    num_weights = _convert_weights(model.graph, half, float32)
    casts = _Casts(model.graph, half, float32)
    for node in list(model.graph):
        casts.connect(node)
    for position, output in enumerate(list(model.graph.outputs)):
        casts.widen_output(position, output)
    _describe(model, precision)
    return HalfResult(model, num_weights, casts.count, len(float32))


def _require_float32(model: ir.Model) -> None:
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    for value in values:
        if value.dtype is None:
            raise QuantizationError(f"the type of {value.name!r} is unknown; export the graph again")
        if value.dtype in {*_HALVES.values(), ir.DataType.DOUBLE}:
            raise QuantizationError(
                f"{value.name!r} is {value.dtype.name.lower()}, expected a float32 graph; start from the variant "
                "fp32 of the bundle"
            )
    for node in graph:
        makes_float = any(value.dtype == _FLOAT for value in node.outputs)
        reads_float = any(value is not None and value.dtype == _FLOAT for value in node.inputs)
        if makes_float and not reads_float and node.op_type != "Cast":
            raise QuantizationError(f"{node.name}: it is not known how {node.op_type} makes half values")


def _raise_opset(model: ir.Model) -> None:
    """Bring graph and functions to the opset in which every operator takes bfloat16.

    Between the exporter's opsets the definitions only gain types, which is checked for each operator in use.
    """
    scopes: list[tuple[dict[str, int], Iterable[ir.Node]]] = [(model.graph.opset_imports, model.graph)]
    scopes += [(function.opset_imports, function) for function in model.functions.values()]
    for opsets, nodes in scopes:
        version = opsets.get("", _BFLOAT16_OPSET)
        if version >= _BFLOAT16_OPSET:
            continue
        for op_type in sorted({node.op_type for node in nodes if node.domain == ""}):
            old = onnx.defs.get_schema(op_type, version)
            new = onnx.defs.get_schema(op_type, _BFLOAT16_OPSET)
            gained = set(new.attributes) ^ set(old.attributes)
            if gained - _HARMLESS_ATTRIBUTES or [x.name for x in new.inputs] != [x.name for x in old.inputs]:
                raise QuantizationError(
                    f"{op_type} changed between opset {version} and {_BFLOAT16_OPSET}, which bfloat16 needs; "
                    f"export the float32 graph with opset {_BFLOAT16_OPSET}"
                )
        opsets[""] = _BFLOAT16_OPSET
    model.ir_version = max(model.ir_version, _BFLOAT16_IR_VERSION)


def _convert_weights(graph: ir.Graph, half: ir.DataType, float32: set[ir.Node]) -> int:
    """Make constants half; those that only float32 nodes read stay, those that both read are doubled."""
    count = 0
    for value in list(graph.initializers.values()):
        if value.dtype != _FLOAT or value.const_value is None:
            continue
        narrow = [use for use in value.uses() if use.node not in float32]
        if not narrow:
            continue
        converted = _half_tensor(value, half)
        target = value
        if len(narrow) < len(value.uses()) or value.is_graph_output():
            target = ir.Value(name=f"{value.name}/half", shape=value.shape)
            for use in narrow:
                use.node.replace_input_with(use.idx, target)
        target.type, target.const_value = ir.TensorType(half), converted
        if target is not value:
            graph.register_initializer(target)
        count += 1
    return count


def _half_tensor(value: ir.Value, half: ir.DataType) -> ir.TensorProtocol:
    """Round to nearest even.

    Raises:
        QuantizationError: A finite number becomes infinite.
    """
    assert value.const_value is not None  # noqa: S101 - the caller looked
    exact = value.const_value.numpy()
    with np.errstate(over="ignore"):
        rounded = exact.astype(half.numpy())
    lost = np.isinf(rounded.astype(np.float32)) & np.isfinite(exact)
    if lost.any():
        largest = exact[lost][np.abs(exact[lost]).argmax()]
        raise QuantizationError(
            f"{lost.sum()} of {exact.size} numbers of weight {value.name!r} do not fit into {half.name.lower()} "
            f"(the largest is {largest:.6g}); use bfloat16, or keep float32"
        )
    return ir.Tensor(rounded, name=value.name)


class _Casts:
    """Gives every node its types, with at most one cast to each type behind a value."""

    def __init__(self, graph: ir.Graph, half: ir.DataType, float32: set[ir.Node]) -> None:
        self.graph, self.half, self.float32 = graph, half, float32
        self.count = 0
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._names = {node.name for node in graph}

    def connect(self, node: ir.Node) -> None:
        """Type a node's outputs and cast those inputs that come in another float type; in network order."""
        wanted = _FLOAT if node in self.float32 else self.half
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in {_FLOAT, self.half} - {wanted}:
                if node.op_type == "Cast":
                    continue  # it takes any type
                node.replace_input_with(index, self._cast(value, wanted, node))
        for value in node.outputs:
            if value.dtype == _FLOAT:
                value.type = ir.TensorType(wanted)
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", wanted)
        if node.op_type == "LayerNormalization":
            node.attributes["stash_type"] = ir.AttrInt64("stash_type", _FLOAT)

    def widen_output(self, position: int, value: ir.Value) -> None:
        """Let the graph's output be float32, under its name."""
        producer = value.producer()
        if value.dtype != self.half or producer is None:
            return
        name, value.name = value.name, producer.name
        self.graph.outputs.pop(position)
        output = self._cast(value, _FLOAT, producer)
        output.name, output.doc_string, value.doc_string = name, value.doc_string, None
        self.graph.outputs.insert(position, output)

    def _cast(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        """Return `value` as `dtype`; the cast belongs to the float32 module, or to the reader of an input."""
        if (value, dtype) in self._made:
            return self._made[value, dtype]
        producer = value.producer()
        owner = producer if producer is not None and dtype == self.half else reader
        module = "graph" if producer is None else (owner.name or "").rpartition("/")[0]
        node = ir.node("Cast", [value], {"to": dtype}, name=self._free_name(f"{module}/Cast"))
        output = node.outputs[0]
        output.name, output.shape, output.type = node.name, value.shape, ir.TensorType(dtype)
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        self._made[value, dtype] = output
        self.count += 1
        return output

    def _free_name(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


def _describe(model: ir.Model, precision: str) -> None:
    model.metadata_props["pargo.precision"] = precision
    for part in (model, model.graph):
        part.doc_string = (part.doc_string or "").replace(", float32,", f", {precision},")
