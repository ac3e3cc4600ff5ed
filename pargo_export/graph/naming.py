"""Names that show the architecture in a graph viewer, and nothing that depends on the machine.

A node is called `module.path/Operator`, for example `tower.blocks.3.mlp.down/MatMul`; its value carries the
same name; a weight is called `module.path.weight`. Stack traces and file names that the exporter
leaves in the metadata are removed, so that the same input gives the same bytes.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

__all__ = ["name_by_module"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_ROOT = "front_end"
_TOP = "graph"  # operators outside every submodule: casts at the boundary, tiling


def _module_path(node: ir.Node) -> str:
    """Path of the innermost module that the node was traced in; the optimizer's own nodes ask their producer."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    modules = [scope for scope in scopes[:-1] if scope.partition(".")[0] == _ROOT]
    if modules:
        return modules[-1].removeprefix(_ROOT).removeprefix(".") or _TOP
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return _TOP if producer is None or producer.name is None else producer.name.rpartition("/")[0]


def _strip(metadata: dict[str, str]) -> None:
    for key in [key for key in metadata if key.startswith(("pkg.", "namespace"))]:
        del metadata[key]


def _name_weight(value: ir.Value, node: ir.Node, path: str, taken: Counter[str]) -> None:
    """Name a constant after its first reader; names that come from PyTorch parameters are kept."""
    if value.name is not None and value.name.startswith(f"{_ROOT}."):
        name = value.name.removeprefix(f"{_ROOT}.")
    elif node.op_type in ("MatMul", "Gemm") and node.inputs[1] is value:
        name = f"{path}.weight"
    else:
        position = list(node.inputs).index(value)
        name = f"{node.name}/constant_{position}"
    taken[name] += 1
    value.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def name_by_module(model: ir.Model) -> int:
    """Rename nodes, values and constants of `model` in place; inputs and outputs keep their names.

    Returns:
        The number of nodes named.
    """
    graph = model.graph
    fixed = {id(value) for value in (*graph.inputs, *graph.outputs)}
    constants = {id(value) for value in graph.initializers.values()}
    taken: Counter[str] = Counter(value.name for value in (*graph.inputs, *graph.outputs) if value.name)
    named: set[int] = set()
    weights: list[tuple[ir.Value, ir.Node, str]] = []
    for node in graph:
        path = _module_path(node)
        name = f"{path}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        for value in node.inputs:
            if value is not None and id(value) in constants and id(value) not in named:
                named.add(id(value))
                weights.append((value, node, path))
        for index, value in enumerate(node.outputs):
            if id(value) not in fixed:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}.{index}"
            _strip(value.metadata_props)
        _strip(node.metadata_props)
    for value, node, path in weights:
        _name_weight(value, node, path, taken)
    for value in (*graph.inputs, *graph.initializers.values()):
        _strip(value.metadata_props)
    _strip(graph.metadata_props)
    _strip(model.metadata_props)
    return len(list(graph))
