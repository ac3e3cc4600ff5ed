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
from numpy.typing import NDArray

from pargo_export.errors import QuantizationError
from pargo_export.graph.emulate_half import HalfPrecision, emulated
from pargo_export.quantization.overflow_probe import add_peaks, half_values
from pargo_export.quantization.sessions import open_session

__all__ = ["OverflowFinding", "OverflowReport", "Peak", "watch_overflow"]

_FORMATS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_LIMITS = {"float16": 65504.0, "bfloat16": (2 - 2**-7) * 2.0**127}
_LISTED = 10


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
    producers = half_values(model)
    if not producers:
        raise QuantizationError(f"{graph.name} computes nothing in {precision}; a float graph needs no watch")
    outputs = add_peaks(model, graph.parent)
    session = open_session(model, graph.parent, outputs=outputs, prepack=False, reduce_early=True)
    feed = session.get_inputs()[0].name
    peaks: dict[str, Peak] = {}
    num_images, limit = 0, _LIMITS[precision]
    for index, (name, values) in enumerate(images):
        found = session.run(outputs, {feed: values})
        num_images += 1
        for (tensor, node), largest, total in zip(producers.items(), found[::2], found[1::2], strict=True):
            value = math.nan if np.isnan(total) else float(largest)
            if tensor not in peaks or _exceeds(value, peaks[tensor].value):
                peaks[tensor] = Peak(tensor, node, value, value / limit, name, index)
    if not num_images:
        raise QuantizationError("there are no images to watch; give at least one")
    return _report(precision, limit, near, num_images, list(peaks.values()))


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
