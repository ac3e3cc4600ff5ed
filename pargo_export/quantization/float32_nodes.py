"""Which operators of a half-precision graph compute in float32.

Softmax does, and so do the statistics of a written-out normalisation: reductions, roots, and the arithmetic
between them up to the product with the reciprocal root. Its gain and bias are half again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

__all__ = ["float32_nodes"]

_ALONE = {"LogSoftmax", "Softmax"}
_STATISTICS = {"Pow", "Reciprocal", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sqrt"}
_ARITHMETIC = {"Add", "Div", "Mul", "Neg", "Sub"}


def float32_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes of a float32 graph that stay float32.

    1. Softmax.
    2. Reductions and roots of float values.
    3. Arithmetic between two of case 2.
    4. Arithmetic of two computed values that are both float32 already: the centred values over their deviation.
    """
    nodes = list(graph)
    statistics = {
        node for node in nodes if node.op_type in _STATISTICS and node.outputs[0].dtype == ir.DataType.FLOAT
    }
    after = _spread(nodes, statistics, _producers)
    before = _spread(reversed(nodes), statistics, _readers)
    chosen = statistics | (after & before)
    for node in nodes:
        computed = {id(value) for value in node.inputs if value is not None and value.producer() is not None}
        if node.op_type in _ARITHMETIC and len(computed) > 1 and _producers(node) <= chosen:
            chosen.add(node)
    return chosen | {node for node in nodes if node.op_type in _ALONE}


def _producers(node: ir.Node) -> set[ir.Node]:
    found = (value.producer() for value in node.inputs if value is not None)
    return {producer for producer in found if producer is not None}


def _readers(node: ir.Node) -> set[ir.Node]:
    return {reader for value in node.outputs for reader in value.consumers()}


def _spread(
    nodes: Iterable[ir.Node], seeds: set[ir.Node], neighbours: Callable[[ir.Node], set[ir.Node]]
) -> set[ir.Node]:
    """Return the arithmetic that is connected to a seed through arithmetic alone, in one direction."""
    reached: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in _ARITHMETIC and neighbours(node) & (seeds | reached):
            reached.add(node)
    return reached
