"""Write a merged product whose result is only cut into parts as one product for each part, for CPUs.

    x -> MatMul(W) -> Add(b) -> Split -> y_0, y_1      becomes      x -> MatMul(W_i) -> Add(b_i) -> y_i

Merged projections are one large product on a GPU. On a CPU with 8-bit weights the product is fast and the cut is a copy
of its float result, which OpenVINO makes with its reference implementation (docs/numerics.md). The numbers are the same:
each output channel has its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["split_merged_products"]


@dataclass(frozen=True, eq=False)
class _Merged:
    """A product and what belongs to it alone.

    Attributes:
        split: Cuts the last axis.
        add: Adds the bias; `None` without one.
        product: The MatMul.
        restore: The DequantizeLinear of its weight `[C, N]`.
        sizes: Channels of each part; their sum is N.
    """

    split: ir.Node
    add: ir.Node | None
    product: ir.Node
    restore: ir.Node
    sizes: tuple[int, ...]

    @property
    def nodes(self) -> list[ir.Node]:
        """All of them, readers first."""
        return [node for node in (self.split, self.add, self.product, self.restore) if node is not None]


def split_merged_products(model: ir.Model) -> int:
    """Split every product with a quantized weight whose result only a Split reads, in place.

    Returns:
        How many products were split.
    """
    found = [merged for node in model.graph if (merged := _match(node)) is not None]
    for merged in found:
        _rewrite(model.graph, merged)
    return len(found)


def _match(split: ir.Node) -> _Merged | None:
    sizes = _channels(split)
    add = _only_producer(split, 0) if sizes else None
    product = add
    if add is not None and add.op_type == "Add":
        constants = [
            index for index, value in enumerate(add.inputs) if value is not None and value.is_initializer()
        ]
        product = _only_producer(add, 1 - constants[0]) if len(constants) == 1 else None
    else:
        add = None
    restore = _only_producer(product, 1) if product is not None and product.op_type == "MatMul" else None
    if product is None or restore is None or not _restores_columns(restore, sum(sizes)):
        return None
    return _Merged(split, add, product, restore, sizes)


def _channels(split: ir.Node) -> tuple[int, ...]:
    """Return the sizes into which a node cuts the last axis of a value; nothing if it does something else."""
    whole = split.inputs[0] if split.op_type == "Split" else None
    if whole is None or whole.shape is None or any(output.is_graph_output() for output in split.outputs):
        return ()
    sizes = [None if output.shape is None else output.shape[-1] for output in split.outputs]
    on_last_axis = split.attributes.get_int("axis", 0) in {-1, len(whole.shape) - 1}
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if on_last_axis and len(known) == len(sizes) else ()


def _restores_columns(node: ir.Node, columns: int) -> bool:
    """Whether a node makes a matrix `[C, columns]` of stored numbers, with one scale for each column."""
    stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
    if stored is None or not stored.is_initializer() or stored.shape is None or len(stored.shape) != 2:
        return False
    return node.attributes.get_int("axis", 1) in {1, -1} and stored.shape[1] == columns


def _only_producer(node: ir.Node, index: int) -> ir.Node | None:
    """Return what makes an input, if nothing else reads it."""
    value = node.inputs[index]
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def _rewrite(graph: ir.Graph, merged: _Merged) -> None:
    start = 0
    for index, (output, size) in enumerate(zip(merged.split.outputs, merged.sizes, strict=True)):
        part = slice(start, start + size)
        start += size
        constants = [_part(graph, value, part, index) for value in merged.restore.inputs if value is not None]
        restore = ir.node(
            "DequantizeLinear", constants, {"axis": 1}, name=f"{merged.restore.name}_part_{index}"
        )
        restore.outputs[0].type = merged.restore.outputs[0].type
        restore.outputs[0].name = restore.name
        restore.outputs[0].shape = constants[0].shape
        product = ir.node("MatMul", [merged.product.inputs[0], restore.outputs[0]])
        nodes = [restore, product]
        if merged.add is not None:
            bias = next(value for value in merged.add.inputs if value is not None and value.is_initializer())
            nodes.append(ir.node("Add", [product.outputs[0], _part(graph, bias, part, index)]))
        for node, origin in zip(nodes[1:], (merged.product, merged.add), strict=False):
            assert origin is not None  # noqa: S101 - there is an Add only where there was one
            node.name = f"{origin.name}_part_{index}"
            node.outputs[0].name = node.name
            node.outputs[0].type, node.outputs[0].shape = output.type, output.shape
        graph.insert_before(merged.split, nodes)
        output.replace_all_uses_with(nodes[-1].outputs[0])
    constants = [
        value
        for node in merged.nodes
        for value in node.inputs
        if value is not None and value.is_initializer()
    ]
    for node in merged.nodes:
        graph.remove(node, safe=True)
    for value in constants:
        if not value.uses():
            graph.initializers.pop(value.name or "", None)


def _part(graph: ir.Graph, value: ir.Value, part: slice, index: int) -> ir.Value:
    """Return the channels of a constant `[..., N]` that belong to a part, as a new constant."""
    assert value.const_value is not None  # noqa: S101 - it is an initializer
    values: NDArray[np.generic] = np.ascontiguousarray(value.const_value.numpy()[..., part])
    name = f"{value.name}_part_{index}"
    tensor = ir.tensor(values, name=name)
    new = ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(new)
    return new
