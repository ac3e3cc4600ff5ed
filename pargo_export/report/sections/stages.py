"""Where the time goes: decoding, copies, computing."""

from __future__ import annotations

from pargo_export.bench.records import Boundary, Measurement
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import axis, layout, names_axis, rounded
from pargo_export.report.parts import Choice, Figure, LegendEntry, Plot, Section, Table, View

__all__ = ["stages"]

_DEVICE: tuple[Boundary, ...] = ("preprocess", "host_to_device", "compute", "device_to_host")
_HOST: tuple[Boundary, ...] = ("preprocess", "run")
_COLORS: dict[Boundary, str] = {
    "preprocess": "var(--stage-0)",
    "host_to_device": "var(--stage-1)",
    "compute": "var(--stage-2)",
    "device_to_host": "var(--stage-3)",
    "run": "var(--stage-2)",
}
_TOTAL = "var(--ink)"


def stages(context: Context) -> Section | None:
    """Draw the medians of the stages one after the other; `None` if no subject has two of them."""
    batches = sorted({item.batch for item in context.result.measurements})
    views, table, seen = [], [], set()
    for batch in batches:
        found = {subject.name: _parts(context, subject.name, batch) for subject in context.measured}
        found = {name: parts for name, parts in found.items() if len(parts) > 1}
        if not found:
            continue
        seen |= {part.boundary for parts in found.values() for part in parts}
        views.append(View((text.images(batch),), _figure(context, found, batch), _describe(found, batch)))
        table += _rows(context, found, batch)
    if not views:
        return None
    legend = [
        LegendEntry(boundary, text.BOUNDARY_NAMES[boundary], color)
        for boundary, color in _COLORS.items()
        if boundary in seen
    ]
    legend.append(LegendEntry("total", "end to end, measured by itself", _TOTAL, "line"))
    columns = ("subject", "setting", "stage", "clock", "median, ms", "share of the sum")
    plot = Plot(
        "stages",
        "Stages one after the other",
        tuple(views),
        (Choice("Batch", tuple(view.key[0] for view in views)),),
        tuple(legend),
        note="Medians of each boundary. Medians of parts need not add up to the median of the whole, and an application "
        "that decodes the next picture meanwhile hides part of it.",
        table=Table("Medians of the stages", columns, tuple(table), num_text=4),
    )
    return Section("stages-section", "Where the time goes", (plot,))


def _parts(context: Context, subject: str, batch: int) -> list[Measurement]:
    """Return the finest division that was measured."""
    for boundaries in (_DEVICE, _HOST):
        found = [context.find(subject, batch, boundary) for boundary in boundaries]
        if found[-1] is not None:
            return [item for item in found if item is not None]
    return []


def _figure(context: Context, found: dict[str, list[Measurement]], batch: int) -> Figure:
    data: list[Figure] = []
    for name, parts in found.items():
        label, start = text.wrap(name), 0.0
        for part in parts:
            median = part.summary.median_ms
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "x": rounded([median]),
                    "base": rounded([start]),
                    "y": [label],
                    "width": 0.5,
                    "legendgroup": part.boundary,
                    "marker": {
                        "color": _COLORS[part.boundary],
                        "line": {"width": 1, "color": "var(--surface)"},
                    },
                    "hovertemplate": f"{text.BOUNDARY_NAMES[part.boundary]} ({text.CLOCK_NAMES[part.clock]}): "
                    f"{text.milliseconds(median)}<extra></extra>",
                }
            )
            start += median
        total = context.find(name, batch, "end_to_end")
        if total is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": rounded([total.summary.median_ms]),
                    "y": [label],
                    "legendgroup": "total",
                    "marker": {"symbol": "line-ns-open", "size": 30, "color": _TOTAL, "line": {"width": 2}},
                    "hovertemplate": f"end to end ({text.CLOCK_NAMES[total.clock]}): "
                    f"{text.milliseconds(total.summary.median_ms)}<extra></extra>",
                }
            )
    return {
        "data": data,
        "layout": layout(
            84 + 50 * len(found),
            barmode="overlay",
            xaxis=axis("milliseconds", rangemode="tozero"),
            yaxis=names_axis(len(found)),
        ),
    }


def _describe(found: dict[str, list[Measurement]], batch: int) -> str:
    parts = [
        f"{name}: "
        + ", ".join(
            f"{text.BOUNDARY_NAMES[part.boundary]} {text.milliseconds(part.summary.median_ms)}"
            for part in stages_
        )
        for name, stages_ in found.items()
    ]
    return f"Stages with {text.images(batch)}. {'; '.join(parts)}."


def _rows(context: Context, found: dict[str, list[Measurement]], batch: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, parts in found.items():
        total = sum(part.summary.median_ms for part in parts)
        whole = context.find(name, batch, "end_to_end")
        for part in [*parts, *([whole] if whole else [])]:
            share = "-" if part is whole or not total else f"{part.summary.median_ms / total:.0%}"
            rows.append(
                (
                    name,
                    text.images(batch),
                    text.BOUNDARY_NAMES[part.boundary],
                    text.CLOCK_NAMES[part.clock],
                    text.number(part.summary.median_ms, 4),
                    share,
                )
            )
    return rows
