"""Watch a half-precision graph for values that its format cannot hold.

The CPU computes float16 graphs partly in float32, so that an overflow a GPU would have does not show. The watch
runs the emulated graph (`graph.emulate_half`) and records, for every half value, the largest magnitude before
rounding. Only these scalars leave the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pargo_export.errors import QuantizationError
from pargo_export.graph.emulate_half import EXACT, HalfPrecision, emulated, widened

__all__ = ["OverflowFinding", "OverflowReport", "Peak", "watch_overflow"]

_PEAK, _SUM, _ZERO = "::peak", "::sum", "watch::zero"
_FORMATS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_LISTED = 10
_ERRORS_ONLY = 3
_MASKING = {"Add", "Where"}  # operators that put minus infinity among the scores
_CARRYING = _MASKING | {
    "Cast",
    "CastLike",
    "Concat",
    "Expand",
    "Identity",
    "Mul",
    "Reshape",
    "Slice",
    "Split",
}
_CARRYING |= {"Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True)
class Peak:
    """The largest magnitude of a value over all images.

    Attributes:
        tensor: Name of the value.
        node: The node that computes it; inside a function, `call/value`.
        value: The magnitude before rounding; NaN if one element is NaN.
        fraction: `value` over the largest number of the format.
        image: Name of the image on which it was seen.
        index: Its position among the images.
    """

    tensor: str
    node: str
    value: float
    fraction: float
    image: str
    index: int


@dataclass(frozen=True)
class OverflowFinding(Peak):
    """A value that the format cannot hold.

    Attributes:
        origin: Whether it is the first one in the network; those after it may only follow from it.
    """

    origin: bool = False


@dataclass(frozen=True)
class OverflowReport:
    """What a watch saw.

    Attributes:
        precision: The format.
        limit: Its largest number.
        near: Fraction of the limit from which on a value is worth a warning.
        num_images: Images run.
        findings: Values that overflow or are NaN, in network order.
        largest: The largest finite values that the format holds, descending.
        warnings: Those of them above `near` times the limit.
    """

    precision: HalfPrecision
    limit: float
    near: float
    num_images: int
    findings: tuple[OverflowFinding, ...] = ()
    largest: tuple[Peak, ...] = ()
    warnings: tuple[Peak, ...] = field(default=())

    @property
    def message(self) -> str:
        """One sentence for each origin and warning; empty if all is well."""
        lines = [self._describe(item) for item in self.findings if item.origin]
        if len(self.findings) > 1:
            lines[0] += f" ({len(self.findings) - 1} later values are affected too)"
        lines += [
            f"{item.node} reaches {item.value:.6g}, {item.fraction:.0%} of what {self.precision} holds "
            f"({self.limit:.6g}), on images[{item.index}] {item.image!r}"
            for item in self.warnings
        ]
        return "\n".join(lines)

    def _describe(self, finding: OverflowFinding) -> str:
        where = f"on images[{finding.index}] {finding.image!r}"
        if math.isnan(finding.value):
            return f"{finding.node} holds NaN {where}; check its inputs and the weights that it reads"
        mend = "keep that block in float32" + (" or use bfloat16" if self.precision == "float16" else "")
        return f"{finding.node} reaches {finding.value:.6g} ({self.precision} holds {self.limit:.6g}) {where}; {mend}"


def watch_overflow(
    graph: Path,
    precision: HalfPrecision,
    images: Iterable[tuple[str, NDArray[np.generic]]],
    *,
    near: float = 0.5,
) -> OverflowReport:
    """Run images through a half-precision graph and report what does not fit, or hardly.

    Underflow is not looked at: it costs accuracy, which the accuracy gate measures.

    Args:
        graph: An `.onnx` file of that precision; nothing is written.
        precision: The half precision of the graph.
        images: Name and input of the graph, best a batch of one each: the emulation needs float32 memory.
        near: Fraction of the format's largest number from which on a value is listed as a warning.

    Raises:
        QuantizationError: The graph has no half values, there are no images, or ONNX Runtime refuses the graph.
    """
    if not 0 < near <= 1:
        raise QuantizationError(
            f"near is {near}; expected a fraction of the largest number, above 0 and up to 1"
        )
    model = emulated(onnx.load(graph, load_external_data=False), precision)
    producers = _producers(model)
    if not producers:
        raise QuantizationError(f"{graph.name} computes nothing in {precision}; a float graph needs no watch")
    _add_peaks(model, _hidden_values(model, graph.parent))
    outputs = [f"{tensor}{suffix}" for suffix in (_PEAK, _SUM) for tensor in producers]
    session = _session(model, graph.parent, outputs)
    feed = session.get_inputs()[0].name
    peaks: dict[str, Peak] = {}
    num_images = 0
    limit = float(ml_dtypes.finfo(_FORMATS[precision]).max)
    for index, (name, values) in enumerate(images):
        found = session.run(outputs, {feed: values})
        num_images += 1
        for place, (tensor, node) in enumerate(producers.items()):
            value = float(found[place])
            if np.isnan(found[place + len(producers)]):  # the maximum may hide it
                value = math.nan
            if tensor not in peaks or _exceeds(value, peaks[tensor].value):
                peaks[tensor] = Peak(tensor, node, value, value / limit, name, index)
    if not num_images:
        raise QuantizationError("there are no images to watch; give at least one")
    return _report(precision, limit, near, num_images, list(peaks.values()))


def _session(model: ModelProto, folder: Path, outputs: list[str]) -> onnxruntime.InferenceSession:
    """Open the graph with further outputs; its weights lie in `folder`."""
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # The default order leaves all measurements to the end and holds every value until then: 12 GB instead of 1.5.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of all weights
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise QuantizationError(
            f"ONNX Runtime refuses the emulated graph: {str(error).splitlines()[-1]}"
        ) from error


def _producers(model: ModelProto) -> dict[str, str]:
    """Return the node name of every half value, in network order."""
    return {
        output.removesuffix(EXACT): node.name or node.op_type
        for node in model.graph.node
        for output in node.output
        if output.endswith(EXACT)
    }


def _add_peaks(model: ModelProto, hidden: set[str]) -> None:
    """Measure every half value before rounding, right behind its node, so that its memory is free soon."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        for output in node.output:
            if output.endswith(EXACT):
                nodes += _peak_nodes(output, masked=output.removesuffix(EXACT) in hidden)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if hidden:
        model.graph.initializer.append(helper.make_tensor(_ZERO, TensorProto.FLOAT, (), [0.0]))


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


def _exceeds(value: float, other: float) -> bool:
    return not math.isnan(other) and (math.isnan(value) or value > other)


def _report(
    precision: HalfPrecision, limit: float, near: float, num_images: int, peaks: list[Peak]
) -> OverflowReport:
    with np.errstate(over="ignore"):
        rounded = np.array([peak.value for peak in peaks], np.float32).astype(_FORMATS[precision])
    fits = np.isfinite(rounded.astype(np.float32))
    findings = [OverflowFinding(**vars(peak)) for peak, good in zip(peaks, fits, strict=True) if not good]
    if findings:
        findings[0] = replace(findings[0], origin=True)
    held = sorted(
        (peak for peak, good in zip(peaks, fits, strict=True) if good), key=lambda peak: -peak.value
    )
    return OverflowReport(
        precision=precision,
        limit=limit,
        near=near,
        num_images=num_images,
        findings=tuple(findings),
        largest=tuple(held[:_LISTED]),
        warnings=tuple(peak for peak in held if peak.fraction > near),
    )
