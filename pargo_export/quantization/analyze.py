"""Where a quantized graph loses its accuracy, without writing one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pargo_export.bundle import Bundle
from pargo_export.errors import QuantizationError
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.sensitivity import (
    BlockError,
    Sensitivity,
    block_sensitivity,
    depth_curve,
    first_past,
    linear_sensitivity,
)
from pargo_export.quantization.workbench import Workbench

__all__ = ["SensitivityReport", "analyze"]


@dataclass(frozen=True)
class SensitivityReport:
    """Where accuracy is lost.

    Attributes:
        sensitivities: One block, or linear, quantized at a time; the most sensitive first.
        depth: What leaves each block with everything quantized, in the order of the network.
        threshold: Mean cosine that `first_past` refers to.
        first_past: The first block whose output is below the threshold; `None` if none is.
        kept: Linears that the recipe keeps in float, with the reason.
    """

    sensitivities: tuple[Sensitivity, ...]
    depth: tuple[BlockError, ...]
    threshold: float
    first_past: str | None
    kept: dict[str, str]


def analyze(
    bundle: Bundle | str | os.PathLike[str],
    options: QuantizeOptions | None = None,
    *,
    per: Literal["block", "linear"] = "block",
    threshold: float = 0.999,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> SensitivityReport:
    """Measure the sensitivity of every block or linear, and how the error grows through the network.

    The bundle is only read.

    Args:
        bundle: A bundle with a float32 variant and a calibration.
        options: What kind of graph.
        per: What is quantized alone: `block`, or every `linear` (some five times as long).
        threshold: Mean cosine below which a block is named.
        progress: Called with a short text at the start of each step.
        advance: Called with the blocks or linears done and in all.

    Raises:
        BundleError: There is no bundle, or no such variant.
        CalibrationError: The calibration is missing or for another graph.
        QuantizationError: The graph cannot be quantized as asked.
    """
    options = options or QuantizeOptions()
    if not options.quantizes:
        raise QuantizationError(
            f"precision {options.precision!r} quantizes nothing, so no block is sensitive to it; choose int8 or fp8"
        )
    bench = Workbench.of(bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), options)
    progress("running the float32 graph on the evaluation images")
    reference, builder, keep = bench.reference(), bench.builder(), bench.keep()
    progress("quantizing everything")
    with tempfile.TemporaryDirectory(prefix="pargo-export-") as folder:
        built = builder.build(Path(folder) / "all.onnx", keep)
        depth = depth_curve(built, reference, threads=options.threads)
    progress(f"quantizing one {per} at a time")
    measure_each = block_sensitivity if per == "block" else linear_sensitivity
    found = measure_each(builder, reference, keep=keep, threads=options.threads, advance=advance)
    return SensitivityReport(found, depth, threshold, first_past(depth, threshold), built.kept)
