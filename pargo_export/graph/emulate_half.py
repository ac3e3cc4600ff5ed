"""Run a half-precision graph as a GPU would, where no such kernels exist.

ONNX Runtime's CPU provider lacks bfloat16 matrix products, and computes float16 ones partly in float32, where an
overflow does not show. The emulated graph computes every operator in float32 and rounds every value that
the graph declares half to it, overflow to infinity included: what a GPU does, which multiplies half operands
and accumulates in float32. Integers and float8 of quantized graphs stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import onnx
import onnx.inliner
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

__all__ = ["EXACT", "HalfPrecision", "emulate_half", "emulated", "widened"]

HalfPrecision = Literal["float16", "bfloat16"]

EXACT = "::exact"  # suffix of the name of a value before it is rounded
_ROUNDED = "::half"
_FLOAT = TensorProto.FLOAT
_TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
# Attributes that choose the type of a result: Cast, DequantizeLinear, and random or constant tensors.
_TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype"}
_NUMBER = re.compile(r"__\d+$")  # by which the inliner tells the values of several calls apart


def widened(weight: str) -> str:
    """Return the name under which the emulated graph reads a half weight."""
    return f"{weight}::float32"


def _half_values(model: ModelProto, half: int) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    return {value.name for value in values if value.type.tensor_type.elem_type == half}


def _inlined(model: ModelProto) -> ModelProto:
    """Inline the functions; a node from a body is named `call/value`, like every other one after its place."""
    calls = {output: node.name for node in model.graph.node for output in node.output}
    inlined = onnx.inliner.inline_local_functions(model)
    body: list[NodeProto] = []
    for node in inlined.graph.node:
        if not node.name:
            body.append(node)
        call = next((calls[output] for output in node.output if output in calls), None)
        if call is not None:  # the last node of a body makes the value of the call
            for inner in body:
                inner.name = f"{call}/{_NUMBER.sub('', inner.output[0])}" if inner is not node else call
            body = []
    return inlined


def _takes_no_half(attribute: AttributeProto, half: int) -> None:
    """Make an attribute that asks for a half result ask for a float32 one."""
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i == half:
        attribute.i = _FLOAT


def _computed_in_float32(node: NodeProto, half: int, rounded: set[str], weights: set[str]) -> list[NodeProto]:
    """Return the nodes that replace `node`."""
    changed = NodeProto()
    changed.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in weights:
            changed.input[index] = widened(name)
    for attribute in changed.attribute:
        _takes_no_half(attribute, half)
    after = []
    for index, name in enumerate(node.output):
        if name not in rounded:
            continue
        raw, cut = f"{name}{EXACT}", f"{name}{_ROUNDED}"
        if node.op_type in {"Constant", "ConstantOfShape"}:
            raw = cut  # half already
        else:
            after.append(helper.make_node("Cast", [raw], [cut], to=half))
        changed.output[index] = raw
        after.append(helper.make_node("Cast", [cut], [name], to=_FLOAT))
    return [changed, *after]


def emulated(model: ModelProto, precision: HalfPrecision) -> ModelProto:
    """Return the graph with float32 operators and rounded values.

    A value `v` before its rounding is called `v::exact`; nodes keep their names.

    Args:
        model: A graph with weights of that precision, loaded or not, and float32 inputs and outputs.
        precision: What is rounded to.
    """
    half = _TYPES[precision]
    model = _inlined(model)
    rounded = _half_values(model, half)
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == half}
    nodes = [helper.make_node("Cast", [name], [widened(name)], to=_FLOAT) for name in sorted(weights)]
    for node in model.graph.node:
        nodes += _computed_in_float32(node, half, rounded, weights)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.CopyFrom(onnx.ValueInfoProto(name=output.name))
    return model


def emulate_half(graph: Path, precision: HalfPrecision) -> None:
    """Rewrite the graph file in place; weights files stay untouched.

    Args:
        graph: An `.onnx` file with weights of that precision and float32 inputs.
        precision: What is rounded to.
    """
    onnx.save(emulated(onnx.load(graph, load_external_data=False), precision), graph)
