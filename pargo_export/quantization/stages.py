"""Places inside a graph at which accuracy is measured, found by the names of the modules."""

from __future__ import annotations

import re

import onnx_ir as ir

__all__ = ["find_blocks", "find_stages"]

_BLOCK = re.compile(r"^tower\.blocks\.(\d+)(?=[./])")
_LAYER = re.compile(r"^projector\.layers\.(\d+)(?=[./])")


def find_stages(model: ir.Model) -> dict[str, str]:
    """Return the value that holds each stage, in the order of the network.

    `image_features` is the output of `ln_vision` (without its affine part, where that was folded away), then
    come `query_layer_0`, ... and the graph's own output under its name.
    """
    stages: dict[str, str] = {}
    own = str(model.graph.outputs[0].name)
    for node in model.graph:
        name = node.name or ""
        layer = _LAYER.match(name)
        if name.startswith("output_norm/"):
            stages["image_features"] = str(node.outputs[0].name)
        elif layer:
            stages[f"query_layer_{layer.group(1)}"] = str(node.outputs[0].name)
    stages = {stage: value for stage, value in stages.items() if value != own}
    return {**stages, own: own}


def find_blocks(model: ir.Model) -> dict[str, str]:
    """Return the value that leaves each tower block and each query layer, in the order of the network."""
    blocks: dict[str, str] = {}
    for node in model.graph:
        name = node.name or ""
        for pattern, prefix in ((_BLOCK, "tower.blocks"), (_LAYER, "projector.layers")):
            found = pattern.match(name)
            if found:
                blocks[f"{prefix}.{found.group(1)}"] = str(node.outputs[0].name)
    return blocks
