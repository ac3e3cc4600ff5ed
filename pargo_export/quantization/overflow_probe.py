"""An emulated graph that measures its half values, for `overflow.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pargo_export.graph.emulate_half import EXACT, widened

__all__ = ["add_peaks", "half_values"]

_PEAK, _SUM, _ZERO = "::peak", "::sum", "watch::zero"
_MASKING = {"Add", "Where"}  # operators that put minus infinity among the scores
# Operators that pass it on, towards the softmax.
_MOVING = {"Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_CARRYING = _MASKING | _MOVING | {"Cast", "CastLike", "Mul"}


def half_values(model: ModelProto) -> dict[str, str]:
    """Return the node name of every half value, in network order."""
    return {
        output.removesuffix(EXACT): node.name or node.op_type
        for node in model.graph.node
        for output in node.output
        if output.endswith(EXACT)
    }


def add_peaks(model: ModelProto, folder: Path) -> list[str]:
    """Measure every half value before rounding, right behind its node.

    Args:
        model: The emulated graph, changed in place.
        folder: Where its external weights lie.

    Returns:
        For each of `half_values` two scalars: its largest magnitude, and something that is NaN if one of its
        elements is.
    """
    hidden = _hidden_values(model, folder)
    nodes: list[NodeProto] = []
    names: list[str] = []
    for node in model.graph.node:
        nodes.append(node)
        for output in node.output:
            if output.endswith(EXACT):
                nodes += _peak_nodes(output, masked=output.removesuffix(EXACT) in hidden)
                names += nodes[-2].output[0], nodes[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if hidden:
        model.graph.initializer.append(helper.make_tensor(_ZERO, TensorProto.FLOAT, (), [0.0]))
    return names


def _peak_nodes(exact: str, *, masked: bool) -> list[NodeProto]:
    """Return nodes for the largest magnitude and the sum of the magnitudes of a value.

    The sum is there for NaN alone: ONNX Runtime's ReduceMax passes over NaN unless it stands first.
    """
    tensor, nodes = exact.removesuffix(EXACT), []
    if masked:  # minus infinity is meant: it hides scores from the softmax
        is_hidden, shown = f"{tensor}::is_hidden", f"{tensor}::shown"
        nodes.append(helper.make_node("IsInf", [exact], [is_hidden], detect_positive=0))
        nodes.append(helper.make_node("Where", [is_hidden, _ZERO, exact], [shown]))
        exact = shown
    size = f"{tensor}::size"
    return [
        *nodes,
        helper.make_node("Abs", [exact], [size]),
        helper.make_node("ReduceMax", [size], [f"{tensor}{_PEAK}"], keepdims=0),
        helper.make_node("ReduceSum", [size], [f"{tensor}{_SUM}"], keepdims=0),
    ]


def _hidden_values(model: ModelProto, folder: Path) -> set[str]:
    """Return the values that hold minus infinity because a constant of the graph does: scores under a mask."""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    found = set()
    for tensor in model.graph.initializer:
        if (readers.get(tensor.name, set()) | readers.get(widened(tensor.name), set())) & _MASKING:
            values = numpy_helper.to_array(tensor, base_dir=str(folder))
            if values.dtype.kind != "i" and np.isneginf(values.astype(np.float32)).any():
                found.add(tensor.name)
    for node in model.graph.node:
        if node.op_type == "Constant":
            held = [helper.get_attribute_value(item) for item in node.attribute if item.name == "value_float"]
            if -math.inf in held:
                found.update(node.output)
        carried = node.input[:1] if node.op_type == "CastLike" else node.input
        if node.op_type in _CARRYING and found.intersection(carried):
            found.update(node.output)
    return {name.removesuffix(EXACT) for name in found if name.endswith(EXACT)}
