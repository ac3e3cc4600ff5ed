"""Every variant beside the baseline: totals with their intervals, tasks, tokens, times."""

from __future__ import annotations

from pargo_export.evaluation.mme.records import Comparison, MmeEvaluation
from pargo_export.evaluation.report.style import colors, interval, signed
from pargo_export.report import text
from pargo_export.report.drawing import axis, layout, line_at, names_axis
from pargo_export.report.parts import Block, Figure, Plot, Section, Table, View

__all__ = ["differences"]


def differences(found: MmeEvaluation) -> Section | None:
    """Draw the difference of the sum over all tasks; `None` without comparisons."""
    if not found.comparisons:
        return None
    parts = [
        f"{item.variant} {signed(item.difference_with_additional)} ({item.verdict})"
        for item in found.comparisons
    ]
    plot = Plot(
        "difference-plot",
        "Difference of the sum over all tasks",
        (View((), _figure(found), f"Beside {found.comparisons[0].baseline}: {'; '.join(parts)}."),),
        note="Left of 0 is worse. The bar is the confidence interval; where there is none, a task had a single image.",
        table=_totals(found),
    )
    blocks: list[Block] = [plot, _tasks(found)]
    if any(item.tokens is not None for item in found.comparisons):
        blocks.append(_tokens(found))
    lead = (
        f"Beside {found.comparisons[0].baseline}, on the same questions. McNemar's exact test asks whether chance explains "
        "the questions that only one of the two answers right; that it does is no proof that nothing changed."
    )
    return Section("differences", "Beside the baseline", tuple(blocks), lead)


def _figure(found: MmeEvaluation) -> Figure:
    drawn, data, ends = colors(found), [], [0.0]
    for item in found.comparisons:
        value, spread = item.difference_with_additional, item.interval_with_additional
        low, high = (value, value) if spread is None else (spread.low, spread.high)
        ends += [value, low, high]
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [round(value, 4)],
                "y": [text.wrap(item.variant)],
                "text": [signed(value)],
                "textposition": "top center",
                "textfont": {"color": "var(--ink)", "size": 12},
                "cliponaxis": False,
                "marker": {"size": 11, "color": drawn.get(item.variant, "var(--series-0)")},
                "error_x": {
                    "type": "data",
                    "array": [max(0.0, high - value)],
                    "arrayminus": [max(0.0, value - low)],
                    "color": drawn.get(item.variant, "var(--series-0)"),
                    "thickness": 2.5,
                    "width": 6,
                },
                "hovertemplate": f"{signed(low)} to {signed(high)}<extra></extra>",
            }
        )
    span = max(ends) - min(ends) or 1.0
    return {
        "data": data,
        "layout": layout(
            80 + 52 * len(data),
            xaxis=axis("points", range=[min(ends) - 0.1 * span, max(ends) + 0.1 * span]),
            yaxis=names_axis(len(data)),
            shapes=[line_at(0.0, color="var(--ink-2)", dash="dash")],
            margin={"l": 8, "r": 14, "t": 22, "b": 8},
        ),
    }


def _totals(found: MmeEvaluation) -> Table:
    rows = tuple(
        (
            item.variant,
            item.verdict,
            signed(item.difference),
            interval(item.interval),
            signed(item.difference_with_additional),
            interval(item.interval_with_additional),
            f"{item.num_same_text} of {item.num_questions}",
            str(item.num_gained),
            str(item.num_lost),
            f"{item.p_value:.3g}",
        )
        for item in found.comparisons
    )
    columns = (
        "variant",
        "verdict",
        "official total",
        "interval",
        "all tasks",
        "interval",
        "same answers",
        "gained",
        "lost",
        "McNemar p",
    )
    method = next(
        (item.interval_with_additional.method for item in found.comparisons if item.interval_with_additional),
        "none",
    )
    return Table(f"Differences in numbers; interval: {method}", columns, rows, num_text=2, is_open=True)


def _tasks(found: MmeEvaluation) -> Table:
    rows = tuple(
        (
            item.variant,
            name,
            f"{task.baseline:.2f}",
            f"{task.score:.2f}",
            signed(task.difference),
            str(task.num_gained),
            str(task.num_lost),
        )
        for item in found.comparisons
        for name, task in item.tasks.items()
    )
    columns = ("variant", "task", "baseline", "score", "difference", "gained", "lost")
    return Table("Task by task", columns, rows, num_text=2)


def _tokens(found: MmeEvaluation) -> Table:
    columns = (
        "variant",
        "mean cosine",
        "worst token",
        "largest difference",
        "SQNR dB",
        "images",
        "baseline ms",
        "ms",
        "ratio",
    )
    rows = tuple(row for item in found.comparisons if (row := _token_row(item)) is not None)
    boundary = next(item.times.boundary for item in found.comparisons if item.times is not None)
    return Table(f"Visual tokens, and time: {boundary}", columns, rows, is_open=True)


def _token_row(item: Comparison) -> tuple[str, ...] | None:
    if item.tokens is None or item.times is None:
        return None
    tokens, times = item.tokens, item.times
    return (
        item.variant,
        f"{tokens.mean_cosine:.6f}",
        f"{tokens.worst_cosine:.6f}",
        text.number(tokens.max_abs),
        "-" if tokens.sqnr_db is None else f"{tokens.sqnr_db:.1f}",
        str(tokens.num_images),
        text.number(times.baseline_ms, 4),
        text.number(times.variant_ms, 4),
        text.number(times.ratio),
    )
