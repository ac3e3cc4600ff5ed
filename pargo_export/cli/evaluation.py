"""How an evaluation looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from pargo_export.cli import layout

if TYPE_CHECKING:
    from pargo_export.bench.records import Interval
    from pargo_export.evaluation.mme.records import Comparison, MmeEvaluation, VariantResult

__all__ = ["render_evaluation"]

_MOST_FLIPS = 6  # of each comparison; the JSON and the HTML have all


def render_evaluation(found: MmeEvaluation) -> Iterator[RenderableType]:
    """Lay out scores, comparisons and flips."""
    for variant in found.variants:
        yield from _scores(variant)
    for comparison in found.comparisons:
        yield from _comparison(comparison)
    if found.warnings:
        yield layout.heading("What to know")
        yield layout.facts(("warning", warning) for warning in found.warnings)


def _scores(variant: VariantResult) -> Iterator[RenderableType]:
    backend = f" on {variant.backend}" if variant.backend else ""
    yield layout.heading(f"{variant.name}{backend}")
    rows = []
    for group, scores in variant.scores.groups.items():
        for name, task in scores.tasks.items():
            counts = (str(task.num_images), str(task.other_num))
            rows.append(
                (name, f"{task.score:.2f}", f"{100 * task.acc:.2f}", f"{100 * task.acc_plus:.2f}", *counts)
            )
        if scores.tasks:
            rows.append((f"{group} total", f"{scores.total:.2f}", "", "", "", ""))
    yield layout.table(("task", "score", "acc %", "acc+ %", "images", "other"), rows)
    missing = [task for scores in variant.scores.groups.values() for task in scores.missing]
    yield layout.facts(
        [
            ("total", f"{variant.scores.total:.2f} (Perception and Cognition)"),
            ("missing", ", ".join(missing)),
            ("answers", f"{variant.results}{_reused(variant)}"),
            (
                "encode",
                "" if variant.encode_ms is None else f"{layout.figure(variant.encode_ms)} ms an image",
            ),
        ]
    )


def _reused(variant: VariantResult) -> str:
    return f"; {len(variant.reused)} task(s) of an earlier run" if variant.reused else ""


def _comparison(found: Comparison) -> Iterator[RenderableType]:
    yield layout.heading(f"{found.variant} beside {found.baseline}")
    yield Text.assemble("  ", layout.mark(found.verdict != "significantly worse"), f" {found.verdict}")
    rows = [
        (
            name,
            f"{task.baseline:.2f}",
            f"{task.score:.2f}",
            _signed(task.difference),
            str(task.num_gained),
            str(task.num_lost),
        )
        for name, task in found.tasks.items()
    ]
    yield layout.table(("task", "was", "is", "difference", "gained", "lost"), rows)
    yield layout.facts(
        [
            ("total", f"{_signed(found.difference)}{_interval(found.interval)}"),
            (
                "all tasks",
                f"{_signed(found.difference_with_additional)}{_interval(found.interval_with_additional)}",
            ),
            ("answers", _answers(found)),
            ("tokens", _tokens(found)),
            ("time", _times(found)),
        ]
    )
    for flip in found.flips[:_MOST_FLIPS]:
        direction = "gained" if flip.is_gain else "lost"
        yield Text(
            f"  {direction}: {flip.task}/{flip.image}: {flip.baseline_answer[:20]!r} became {flip.answer[:20]!r}, "
            f"right is {flip.truth}"
        )
    if len(found.flips) > _MOST_FLIPS:
        yield Text(f"  and {len(found.flips) - _MOST_FLIPS} more: -o FILE.json or --html FILE has them all")


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    return f", {found.level:.0%} interval {_signed(found.low)} to {_signed(found.high)}"


def _signed(value: float) -> str:
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _answers(found: Comparison) -> str:
    return (
        f"{found.num_same_text} of {found.num_questions} the same, {found.num_gained} gained, {found.num_lost} lost; "
        f"McNemar p {found.p_value:.2g}"
    )


def _tokens(found: Comparison) -> str:
    if found.tokens is None:
        return ""
    return (
        f"cosine {found.tokens.mean_cosine:.6f} on average, {found.tokens.worst_cosine:.6f} of the worst, "
        f"{found.tokens.num_images} images"
    )


def _times(found: Comparison) -> str:
    if found.times is None:
        return ""
    times = found.times
    return f"{times.ratio:.2f} of the baseline's ({layout.figure(times.baseline_ms)} ms); {times.boundary}"
