"""Latency and throughput against the batch, and against the number of callers."""

from __future__ import annotations

from typing import Literal

from pargo_export.bench.records import Boundary, Measurement
from pargo_export.report import text
from pargo_export.report.context import TOTALS, Context
from pargo_export.report.drawing import axis, layout, log_axis, rounded
from pargo_export.report.parts import Choice, Figure, LegendEntry, Plot, Section, Table, View

__all__ = ["scaling"]

_WIDE = 8  # a linear axis shows less than so many times the smallest
_Along = Literal["batch", "concurrency"]
_TITLES: dict[_Along, tuple[str, str, str]] = {
    "batch": ("Against the batch", "images in one run", "with 1 caller"),
    "concurrency": ("Against the number of callers", "callers at the same time", "at the smallest batch"),
}


def scaling(context: Context) -> Section | None:
    """Draw latency and throughput against batch and callers; `None` if there was one of each."""
    plots = [plot for along in _TITLES if (plot := _plot(context, along)) is not None]
    if not plots:
        return None
    lead = "What a larger batch, or more callers, cost in latency and bring in throughput."
    return Section("scaling", "Latency and throughput", tuple(plots), lead)


def _plot(context: Context, along: _Along) -> Plot | None:
    title, unit, fixed = _TITLES[along]
    views, table = [], []
    for boundary in TOTALS:
        found = {
            subject.name: items
            for subject in context.measured
            if len(items := _series(context, subject.name, boundary, along)) > 1
        }
        if not found:
            continue
        key = (text.BOUNDARY_NAMES[boundary],)
        views.append(View(key, _figure(context, found, along, unit), _describe(found, boundary, along)))
        table += [
            (
                name,
                text.BOUNDARY_NAMES[boundary],
                str(getattr(item, along)),
                text.number(item.summary.median_ms, 4),
                text.interval(item.summary.median_interval),
                text.number(item.summary.p99_ms, 4),
                text.number(item.images_per_s),
            )
            for name, items in found.items()
            for item in items
        ]
    if not views:
        return None
    columns = ("subject", "boundary", unit, "median, ms", "interval", "p99, ms", "images/s")
    names = {row[0] for row in table}
    return Plot(
        f"by-{along}",
        title,
        tuple(views),
        (Choice("Boundary", tuple(view.key[0] for view in views)),),
        tuple(
            LegendEntry(entry.group, entry.name, entry.color, "line") for entry in context.legend(list(names))
        ),
        note=f"Above: median latency of a run, thin line up to the 99th percentile. Below: throughput; {fixed}.",
        table=Table(f"{title}, {fixed}", columns, tuple(table), num_text=2),
    )


def _series(context: Context, subject: str, boundary: Boundary, along: _Along) -> list[Measurement]:
    items = [
        item
        for item in context.result.measurements
        if item.subject == subject and item.boundary == boundary and item.samples_ms
    ]
    if along == "batch":
        return sorted((item for item in items if item.concurrency == 1), key=lambda item: item.batch)
    smallest = min((item.batch for item in items), default=0)
    return sorted((item for item in items if item.batch == smallest), key=lambda item: item.concurrency)


def _figure(context: Context, found: dict[str, list[Measurement]], along: _Along, unit: str) -> Figure:
    data: list[Figure] = []
    ticks = sorted({int(getattr(item, along)) for items in found.values() for item in items})
    for name, items in found.items():
        style = context.style(name)
        common = {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [int(getattr(item, along)) for item in items],
            "line": {"color": style.color, "width": 2, "dash": style.dash},
            "marker": {"size": 8, "symbol": style.symbol, "color": style.color},
            "legendgroup": style.group,
        }
        medians = [item.summary.median_ms for item in items]
        data.append(
            common
            | {
                "y": rounded(medians),
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded([item.summary.p99_ms - item.summary.median_ms for item in items]),
                    "arrayminus": [0] * len(items),
                    "color": style.color,
                    "thickness": 1,
                    "width": 4,
                },
                "hovertemplate": f"{text.escape(name)}<br>%{{x}}: %{{y:.4g}} ms<extra></extra>",
            }
        )
        data.append(
            common
            | {
                "y": rounded([item.images_per_s for item in items]),
                "yaxis": "y2",
                "hovertemplate": f"{text.escape(name)}<br>%{{x}}: %{{y:.4g}} images/s<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": layout(
            500,
            xaxis=axis(
                unit,
                type="log",
                dtick=None,
                tickvals=ticks,
                ticktext=[str(tick) for tick in ticks],
                anchor="y2",
            ),
            yaxis=_latency_axis(found),
            yaxis2=axis("images/s", domain=[0, 0.46], rangemode="tozero"),
        ),
    }


def _latency_axis(found: dict[str, list[Measurement]]) -> Figure:
    """From zero, or logarithmic where the slowest would flatten the others."""
    medians = [item.summary.median_ms for items in found.values() for item in items]
    slowest = max(item.summary.p99_ms for items in found.values() for item in items)
    if min(medians) > 0 and max(medians) > _WIDE * min(medians):
        return log_axis("ms (logarithmic)", 0.7 * min(medians), 1.3 * slowest, domain=[0.54, 1])
    return axis("milliseconds", domain=[0.54, 1], rangemode="tozero")


def _describe(found: dict[str, list[Measurement]], boundary: Boundary, along: _Along) -> str:
    parts = [
        f"{name}: "
        + ", ".join(
            f"{getattr(item, along)} {text.milliseconds(item.summary.median_ms)} and {text.number(item.images_per_s)} "
            "images/s"
            for item in items
        )
        for name, items in found.items()
    ]
    return f"Median latency and throughput by {along}, {text.BOUNDARY_NAMES[boundary]}. {'; '.join(parts)}."
