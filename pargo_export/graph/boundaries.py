"""Stage boundaries: named values inside a graph at which the parity gate looks.

The deployed graph has one output. A *probe* is the same graph with the boundaries as further outputs; it
shares the weights file and is thrown away after the gate.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

__all__ = ["detach_boundaries", "write_probe"]


def detach_boundaries(model: ir.Model, boundaries: list[str]) -> dict[str, str]:
    """Make the boundaries plain inner values again, and drop the casts that only served them.

    Returns:
        For each boundary the name of the value that holds it.
    """
    holders: dict[str, str] = {}
    for output in list(model.graph.outputs):
        if output.name not in boundaries:
            continue
        producer = output.producer()
        holder: ir.Value = output
        if producer is not None and producer.op_type == "Cast" and not output.uses():
            holder = producer.inputs[0] or output
        holders[output.name] = holder.name or output.name
        model.graph.outputs.remove(output)
    common_passes.RemoveUnusedNodesPass()(model)
    return holders


def write_probe(graph: Path, probe: Path, holders: dict[str, str]) -> None:
    """Write `graph` with the holders as further outputs to `probe`, which must lie in the same folder."""
    model = onnx.load(graph, load_external_data=False)
    present = {output.name for output in model.graph.output}
    for name in holders.values():
        if name not in present:
            present.add(name)
            model.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    onnx.save(model, probe)
