"""A graph without model-local functions, for parsers that know none."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

__all__ = ["without_functions"]


def without_functions(graph: Path) -> bytes:
    """Return the serialized model with every function written out.

    Weights in a file beside the graph stay there: a parser has to be told the path of the graph.
    """
    model = ir.load(graph)
    before = set(model.graph)
    calls = {str(node.outputs[0].name): (node.name or "").rpartition("/")[0] for node in before}
    common_passes.InlinePass()(model)
    body: list[ir.Node] = []
    for node in model.graph:
        if node in before:
            continue
        body.append(node)
        path = calls.get(str(node.outputs[0].name))  # the last node of a body gives the value of the call
        if path is not None:
            for index, inlined in enumerate(body):
                inlined.name = f"{path}/{inlined.op_type}_{index}"
            body = []
    return bytes(ir.to_proto(model).SerializeToString())
