"""Ratios against the baselines, with their intervals."""

from __future__ import annotations

from pargo_export.bench.records import BOUNDARIES, Comparison
from pargo_export.report import text
from pargo_export.report.context import TOTALS, Context
from pargo_export.report.drawing import axis, layout, line_at, names_axis, rounded
from pargo_export.report.parts import Choice, Figure, Plot, Section, Table, View

__all__ = ["comparisons"]


def comparisons(context: Context) -> Section | None:
    """Draw every candidate beside every baseline; `None` without comparisons."""
    order = [*TOTALS, *BOUNDARIES]
    found = sorted(
        context.result.comparisons,
        key=lambda item: (order.index(item.boundary), item.batch, item.concurrency),
    )
    if not found:
        return None
    keys = list(dict.fromkeys((item.baseline, _setting(item)) for item in found))
    views = tuple(
        View(
            key,
            _figure(context, [item for item in found if (item.baseline, _setting(item)) == key]),
            _describe([item for item in found if (item.baseline, _setting(item)) == key]),
        )
        for key in keys
    )
    plot = Plot(
        "ratios",
        "Speed against a baseline",
        views,
        choices=(
            Choice("Against", tuple(dict.fromkeys(key[0] for key in keys))),
            Choice("Setting", tuple(dict.fromkeys(key[1] for key in keys))),
        ),
        note="Right of 1 is faster. The bar is the confidence interval: if it crosses 1, no difference was shown.",
        table=_table(found),
    )
    lead = (
        "Both were measured in the same rounds, in turns, so what the machine did meanwhile hit both. The ratio rests "
        "on pairs of rounds."
    )
    return Section("ratios-section", "Against the baselines", (plot,), lead)


def _setting(item: Comparison) -> str:
    setting = f"{text.BOUNDARY_NAMES[item.boundary]}, batch {item.batch}"
    return setting if item.concurrency == 1 else f"{setting}, {item.concurrency} callers"


def _figure(context: Context, items: list[Comparison]) -> Figure:
    data = []
    for item in items:
        style = context.style(item.candidate)
        speed, low, high = rounded(
            [1 / value for value in (item.ratio, item.interval.high, item.interval.low)]
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [speed],
                "y": [text.wrap(item.candidate)],
                "text": [f"{text.number(speed)}x"],
                "textposition": "top center",
                "textfont": {"color": "var(--ink)", "size": 12},
                "cliponaxis": False,
                "marker": {"size": 11, "color": style.color, "symbol": style.symbol},
                "error_x": {
                    "type": "data",
                    "array": [high - speed],
                    "arrayminus": [speed - low],
                    "color": style.color,
                    "thickness": 2.5,
                    "width": 6,
                },
                "hovertemplate": f"{text.number(low)}x to {text.number(high)}x<extra></extra>",
            }
        )
    ends = [1.0, *(1 / item.interval.low for item in items), *(1 / item.interval.high for item in items)]
    span = max(ends) - min(ends) or 1.0
    return {
        "data": data,
        "layout": layout(
            80 + 52 * len(items),
            xaxis=axis(
                "times as fast", range=[min(ends) - 0.08 * span, max(ends) + 0.08 * span], ticksuffix="x"
            ),
            yaxis=names_axis(len(items)),
            shapes=[line_at(1.0, color="var(--ink-2)", dash="dash")],
            margin={"l": 8, "r": 14, "t": 22, "b": 8},
        ),
    }


def _describe(items: list[Comparison]) -> str:
    parts = [f"{item.candidate} {text.times_as_fast(item.ratio)} as fast ({item.verdict})" for item in items]
    return f"Against {items[0].baseline}, {_setting(items[0])}: {'; '.join(parts)}."


def _table(found: list[Comparison]) -> Table:
    rows = tuple(
        (
            item.candidate,
            item.baseline,
            _setting(item),
            item.verdict,
            text.times_as_fast(item.ratio),
            f"{text.times_as_fast(item.interval.high)} to {text.times_as_fast(item.interval.low)}",
            text.number(item.ratio),
            f"{item.interval.level:.0%}",
            str(item.num_rounds),
        )
        for item in found
    )
    columns = (
        "candidate",
        "baseline",
        "setting",
        "verdict",
        "times as fast",
        "interval",
        "ratio of times",
        "level",
        "rounds",
    )
    method = found[0].interval.method
    return Table(f"Ratios; interval: {method}", columns, rows, num_text=4)
