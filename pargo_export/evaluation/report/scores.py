"""Scores by task, every variant beside the others."""

from __future__ import annotations

from pargo_export.evaluation.mme.records import MmeEvaluation
from pargo_export.evaluation.mme.tasks import in_order
from pargo_export.evaluation.report.style import colors, legend
from pargo_export.report import text
from pargo_export.report.drawing import axis, layout, names_axis
from pargo_export.report.parts import Figure, Plot, Section, Table, View

__all__ = ["scores"]

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")
_BEST = 200  # of a task
_MOST_OPEN = 2  # variants whose table is shown at once


def scores(found: MmeEvaluation) -> Section:
    """Draw a row for each task, a mark for each variant."""
    tasks = in_order({task for item in found.variants for task in item.scores.tasks})
    totals = "; ".join(f"{item.name} {item.scores.total:.2f}" for item in found.variants)
    alt = f"Scores of {text.plural(len(tasks), 'task')}; totals: {totals}."
    plot = Plot(
        "scores-plot",
        "Score of each task",
        (View((), _figure(found, tasks), alt),),
        legend=legend(found),
        note="100 for the share of questions answered right, 100 for the share of images with both right. A coin has 75.",
        table=_table(found),
    )
    return Section("scores", "Scores", (plot,), "As the official calculator computes them.")


def _figure(found: MmeEvaluation, tasks: list[str]) -> Figure:
    drawn, baselines = colors(found), {item.baseline for item in found.comparisons}
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": text.escape(item.name),
            "legendgroup": item.name,
            "x": [round(item.scores.tasks[task].score, 4) for task in tasks if task in item.scores.tasks],
            "y": [text.wrap(task.replace("_", " ")) for task in tasks if task in item.scores.tasks],
            "marker": _marker(index, drawn[item.name], is_baseline=item.name in baselines),
            "cliponaxis": False,
            "hovertemplate": f"{text.escape(item.name)}: %{{x:.2f}}<extra></extra>",
        }
        for index, item in enumerate(found.variants)
    ]
    return {
        "data": data,
        "layout": layout(
            70 + 34 * len(tasks),
            xaxis=axis("score", range=[-4, _BEST + 4]),
            yaxis=names_axis(len(tasks))
            | {
                "categoryorder": "array",
                "categoryarray": [text.wrap(task.replace("_", " ")) for task in tasks],
                "showgrid": True,
            },
        ),
    }


def _marker(index: int, color: str, *, is_baseline: bool) -> Figure:
    """The baseline is a ring, so that it shows around marks of the same score."""
    symbol = "circle-open" if is_baseline else _SYMBOLS[index % len(_SYMBOLS)]
    return {"size": 18 if is_baseline else 10, "color": color, "symbol": symbol, "line": {"width": 2}}


def _table(found: MmeEvaluation) -> Table:
    rows: list[tuple[str, ...]] = []
    for item in found.variants:
        for group, scored in item.scores.groups.items():
            rows += [
                (
                    item.name,
                    group,
                    name,
                    f"{task.score:.2f}",
                    f"{100 * task.acc:.2f}",
                    f"{100 * task.acc_plus:.2f}",
                    f"{task.precision:.3f}",
                    f"{task.recall:.3f}",
                    str(task.other_num),
                    str(task.num_images),
                )
                for name, task in scored.tasks.items()
            ]
            missing = f"total; missing: {', '.join(scored.missing)}" if scored.missing else "total"
            rows.append((item.name, group, missing, f"{scored.total:.2f}", *("" for _ in range(6))))
    columns = (
        "variant",
        "group",
        "task",
        "score",
        "acc %",
        "acc+ %",
        "precision",
        "recall",
        "other",
        "images",
    )
    return Table(
        "Scores in numbers", columns, tuple(rows), num_text=3, is_open=len(found.variants) <= _MOST_OPEN
    )
