"""Runs in the order in which they were made, round by round: does a subject drift?"""

from __future__ import annotations

import numpy as np

from pargo_export.bench.records import Measurement
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import annotation, axis, bulk, inside, layout, line_at, rounded, rows, thin
from pargo_export.report.parts import Figure, Plot, Section, Table, View
from pargo_export.report.selection import choices, group, key_of

__all__ = ["rounds"]

_ROW, _TOP = 132, 40  # pixels of a strip
_MOST_POINTS = 500


def rounds(context: Context) -> Section | None:
    """Draw a strip of runs and a box for each round; `None` without times."""
    groups = {
        key: items for key, items in group(context).items() if any(len(item.samples_ms) > 1 for item in items)
    }
    if not groups:
        return None
    plot = Plot(
        "rounds",
        "Runs in order, boxes by round",
        tuple(View(key, _figure(context, items), _describe(items)) for key, items in groups.items()),
        choices(groups),
        note="Milliseconds. A point is a run (a triangle: beyond the axis), a box the quartiles of a round, the line the median of all. Level boxes mean that the "
        "times settled; a box that stands out is a round in which the machine did something else.",
        table=_table(context),
    )
    lead = "In every round each subject was measured in turn, so a disturbance of the machine shows in all of them."
    return Section("rounds-section", "Rounds", (plot,), lead)


def _figure(context: Context, items: list[Measurement]) -> Figure:
    data, shapes, notes = [], [], []
    axes: Figure = {}
    most_rounds = max(len(set(item.rounds)) for item in items)
    for index, (item, domain) in enumerate(zip(items, rows(len(items), 0.4), strict=True)):
        suffix = "" if index == 0 else str(index + 1)
        style = context.style(item.subject)
        samples, of_round = np.asarray(item.samples_ms), np.asarray(item.rounds)
        places = _places(of_round)
        kept = thin(samples, _MOST_POINTS)
        axes_of = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        low, high = bulk(samples)
        shown = samples[kept]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": rounded(places[kept], 5),
                "y": rounded(np.clip(shown, *inside((low, high))), 7),
                "customdata": [
                    f"round {r}: {text.milliseconds(v)}" for r, v in zip(of_round[kept], shown, strict=True)
                ],
                "cliponaxis": False,
                "marker": {
                    "size": [4 if low <= value <= high else 8 for value in shown],
                    "symbol": [
                        "triangle-up" if v > high else "triangle-down" if v < low else "circle" for v in shown
                    ],
                    "color": style.color,
                    "opacity": 0.6,
                },
                "hovertemplate": "%{customdata}<extra></extra>",
                **axes_of,
            }
        )
        data.append(_boxes(samples, of_round) | axes_of)
        shapes.append(
            line_at(item.summary.median_ms, color="var(--ink-2)", vertical=False, suffix=suffix, width=1)
        )
        notes.append(
            annotation(
                f"<b>{text.escape(text.shorten(item.subject))}</b>",
                xref="paper", yref="paper", x=0, y=domain[1], xanchor="left", yanchor="bottom",
                font={"size": 12, "color": "var(--ink)"},
            )
        )  # fmt: skip
        is_last = index == len(items) - 1
        first = int(of_round.min())
        axes[f"xaxis{suffix}"] = axis(
            "round" if is_last else "",
            anchor=f"y{suffix}",
            range=[first - 0.6, first + most_rounds - 0.4],
            showticklabels=is_last,
            tickformat="d",
            nticks=min(12, most_rounds + 1),
            showgrid=False,
            automargin=is_last,
        )
        axes[f"yaxis{suffix}"] = axis(anchor=f"x{suffix}", domain=list(domain), nticks=4, range=[low, high])
    return {
        "data": data,
        "layout": layout(_TOP + _ROW * len(items), shapes=shapes, annotations=notes, **axes)
        | {"margin": {"l": 8, "r": 14, "t": 26, "b": 40}},
    }


def _places(of_round: np.ndarray) -> np.ndarray:
    """Spread the runs of a round over its width, in order."""
    places = of_round.astype(np.float64)
    for value in np.unique(of_round):
        members = np.flatnonzero(of_round == value)
        places[members] += (np.arange(len(members)) + 0.5) / len(members) * 0.8 - 0.4
    return places


def _boxes(samples: np.ndarray, of_round: np.ndarray) -> Figure:
    values = np.unique(of_round)
    quartiles = np.array([np.percentile(samples[of_round == value], [25, 50, 75]) for value in values])
    low, middle, high = quartiles.T
    reach = 1.5 * (high - low)
    lower = [samples[of_round == v].clip(low[i] - reach[i]).min() for i, v in enumerate(values)]
    upper = [samples[of_round == v].clip(None, high[i] + reach[i]).max() for i, v in enumerate(values)]
    return {
        "type": "box",
        "x": [int(value) for value in values],
        "q1": rounded(low, 6),
        "median": rounded(middle, 6),
        "q3": rounded(high, 6),
        "lowerfence": rounded(lower, 6),
        "upperfence": rounded(upper, 6),
        "width": 0.5,
        "line": {"width": 1.25, "color": "var(--ink)"},
        "fillcolor": "rgba(0,0,0,0)",
        "hoverinfo": "skip",
    }


def _describe(items: list[Measurement]) -> str:
    parts = [
        f"{item.subject}: {len(set(item.rounds))} rounds, last third by first third {text.number(item.steadiness.drift)}"
        for item in items
    ]
    return f"Runs by round, {', '.join(key_of(items[0]))}. {'; '.join(parts)}."


def _table(context: Context) -> Table:
    rows_ = []
    for key, items in group(context).items():
        for item in items:
            samples, of_round = np.asarray(item.samples_ms), np.asarray(item.rounds)
            medians = [float(np.median(samples[of_round == value])) for value in np.unique(of_round)]
            rows_.append(
                (
                    item.subject,
                    ", ".join(key),
                    str(len(medians)),
                    text.number(min(medians), 4),
                    text.number(max(medians), 4),
                    text.number(item.steadiness.drift),
                    item.steadiness.reason,
                )
            )
    columns = ("subject", "setting", "rounds", "fastest median", "slowest median", "drift", "found")
    return Table("Medians of the rounds, milliseconds", columns, tuple(rows_), num_text=2)
