"""How calibrations, quantized variants and their accuracy look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from pargo_export.bundle import Calibration, Evidence, TaskEvidence, Variant
from pargo_export.cli import layout
from pargo_export.inspect.accuracy import group_kept, worst_by_stage

if TYPE_CHECKING:
    from pargo_export.quantization.budget import BudgetStep
    from pargo_export.quantization.sensitivity import Accuracy

__all__ = [
    "accuracy_table",
    "budget_table",
    "calibration_rows",
    "describe_images",
    "error_table",
    "quantization_rows",
    "task_table",
]

_DIALECTS = {
    "cpu": "cpu: unsigned asymmetric activations, for integer units of CPUs",
    "tensorrt": "tensorrt: symmetric",
}
_NUM_NAMES = 3
_MEASURES = ("mean cosine", "worst token", "SQNR dB", "max abs")


def quantization_rows(variant: Variant, calibration: Calibration | None) -> Iterator[tuple[str, str]]:
    """Say how a variant was made from another one; nothing for one that was exported."""
    made = variant.quantization
    if made is None:
        return
    yield "made from", f"{made.base}, {_rest(variant)} in {made.float_precision}"
    if made.quantized:
        yield "recipe", made.recipe
        # Weights are symmetric in both dialects.
        weights_only = variant.precision == "int8_weight_only"
        yield "dialect", "weights alone, symmetric" if weights_only else _DIALECTS[made.dialect]
        attentions = sum(path.endswith(".core") for path in made.quantized)
        linears = len(made.quantized) - attentions
        total = linears + sum(not path.endswith(".core") for path in made.kept)
        smoothed = f", outliers smoothed in front of {len(made.smoothed)}" if made.smoothed else ""
        products = f"; products of {attentions} attentions" if attentions else ""
        yield "quantized", f"{linears} of {total} linears{smoothed}{products}"
    for reason, paths in group_kept(made.kept).items():
        yield "kept in float", f"{_names(paths)}: {reason}"
    if calibration is not None:
        yield "calibration", f"{calibration.name}: {describe_images(calibration)}"


def calibration_rows(calibration: Calibration, size_bytes: int) -> Iterator[tuple[str, str]]:
    """Say what a calibration observed."""
    yield "images", describe_images(calibration)
    index, num_parts = calibration.shard
    part = f", part {index} of {num_parts}" if num_parts > 1 else ""
    yield "data", f"sha256 {calibration.dataset_sha256[:16]}, seed {calibration.seed}{part}"
    yield "graph", f"{calibration.variant}, smoothing {calibration.smoothing:g}"
    yield "files", f"{calibration.table} and {len(calibration.files) - 1} more, {layout.size(size_bytes)}"


def describe_images(calibration: Calibration) -> str:
    """`128 observed, 8 kept for evaluation, 3 left out, from a folder`."""
    counts = f"{calibration.num_images} observed, {calibration.num_evaluation} kept for evaluation"
    if calibration.num_skipped:
        counts += f", {calibration.num_skipped} left out"
    if calibration.source == "random":
        return f"{counts}; random noise, no photographs: no evidence of accuracy"
    return f"{counts}, from data of kind {calibration.source}"


def accuracy_table(evidence: Evidence) -> RenderableType:
    """Lay out the worst of every stage."""
    rows = [
        (
            item.stage,
            _digits(item.mean_cosine, 5),
            _digits(item.worst_cosine, 5),
            _digits(item.sqnr_db, 1),
            layout.figure(item.max_abs),
        )
        for item in worst_by_stage(evidence.stages)
    ]
    return layout.table(("stage", *_MEASURES), rows)


def error_table(title: str, items: Iterable[tuple[str, Accuracy]]) -> RenderableType:
    """Lay out blocks or linears with the error that each makes, or shows."""
    rows = [
        (
            name,
            _digits(item.mean_cosine, 5),
            _digits(item.worst_cosine, 5),
            _digits(item.sqnr_db, 1),
            layout.figure(item.max_abs),
        )
        for name, item in items
    ]
    return layout.table((title, *_MEASURES), rows)


def budget_table(steps: Sequence[BudgetStep], metric: str) -> RenderableType:
    """Lay out the graphs that the search for a budget tried, in order."""
    rows = [(str(step.num_kept), f"{step.value:.6g}", "holds" if step.holds else "missed") for step in steps]
    return layout.table(("blocks in float", metric, ""), rows)


def task_table(evidence: TaskEvidence, name: str) -> RenderableType:
    """Lay out the score of every task, of the float32 graph and of the variant, with the total below."""
    scores = [(task, pair.baseline, pair.value) for task, pair in evidence.tasks.items()]
    rows = [
        (task, f"{baseline:.2f}", f"{value:.2f}", f"{value - baseline:+.2f}")
        for task, baseline, value in [*scores, ("total", evidence.baseline, evidence.value)]
    ]
    return layout.table(("task", "float32", name, "difference"), rows)


def _rest(variant: Variant) -> str:
    quantizes = variant.quantization is not None and variant.quantization.quantized
    return "what is not quantized" if quantizes else "all of it"


def _names(paths: Sequence[str]) -> str:
    """`a, b, c and 4 more`."""
    more = len(paths) - _NUM_NAMES
    return ", ".join(paths[:_NUM_NAMES]) + (f" and {more} more" if more > 0 else "")


def _digits(number: float | None, places: int) -> str:
    return "" if number is None else f"{number:.{places}f}"
