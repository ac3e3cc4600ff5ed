"""ONNX Runtime sessions that show inner values of a graph, without writing a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from pargo_export.errors import QuantizationError

__all__ = ["open_session"]

_ERRORS_ONLY = 3


def open_session(
    graph: Path | onnx.ModelProto,
    folder: Path,
    *,
    outputs: Sequence[str] = (),
    threads: int | None = None,
    prepack: bool = True,
    reduce_early: bool = False,
) -> onnxruntime.InferenceSession:
    """Open a graph with further outputs.

    Args:
        graph: The file, or a graph in memory whose weights lie in `folder`.
        folder: Folder of the external data.
        outputs: Values inside the graph that become outputs, after its own.
        threads: CPU threads; by default those that ONNX Runtime takes.
        prepack: Arrange weights for speed, at the price of a second copy of them in memory.
        reduce_early: Compute outputs as soon as their operands are there. The default order leaves many small
            outputs to the end and holds every value until then: 12 GB instead of 1.5 for an overflow watch.

    Raises:
        QuantizationError: ONNX Runtime refuses the graph.
    """
    model = graph if isinstance(graph, onnx.ModelProto) else onnx.load(graph, load_external_data=False)
    if outputs:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
        present = {output.name for output in model.graph.output}
        for name in dict.fromkeys(outputs):
            if name not in present:
                model.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By default products with 8-bit weights round the activations too, which the graph does not say.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if reduce_early:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise QuantizationError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[-1]}") from error
