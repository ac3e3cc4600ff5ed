"""Latency against the load that is offered: how much can it take?"""

from __future__ import annotations

from math import log10

from pargo_export.bench.records import LoadPoint, LoadSweep
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import annotation, axis, layout, line_at, log_axis, rounded
from pargo_export.report.parts import Choice, Figure, LegendEntry, Note, Plot, Section, Table, View

__all__ = ["load"]

_PERCENTILES = (("median_ms", "median", "solid"), ("p95_ms", "p95", "dash"), ("p99_ms", "p99", "dot"))
_ARRIVALS = {"poisson": "independent users (Poisson)", "fixed": "a camera (fixed rate)"}


def load(context: Context) -> Section | None:
    """Draw latency percentiles and late answers against the offered load; `None` without sweeps."""
    sweeps = [sweep for sweep in context.result.loads if sweep.points]
    if not sweeps:
        return None
    names = _names(sweeps)
    plot = Plot(
        "load",
        "Latency against offered load",
        tuple(
            View((name,), _figure(context, sweep), _describe(sweep)) for name, sweep in zip(names, sweeps, strict=True)
        ),
        (Choice("Subject", tuple(names)),),
        tuple(LegendEntry(field, name, "var(--ink-2)", "line" if dash == "solid" else dash)
              for field, name, dash in _PERCENTILES),
        note="Hollow points are saturated: answers came more slowly than requests, and the latency there only says how "
        "long the run was. Above: latency, below: share of the requests that were late, expired or refused.",
        table=_table(names, sweeps),
    )  # fmt: skip
    notes = tuple(Note(f"{name}: {_capacity(sweep)}") for name, sweep in zip(names, sweeps, strict=True))
    lead = (
        "Requests arrive by a plan and do not wait for answers; the latency of a request counts from its planned "
        "arrival, so that time in the queue is in it (no coordinated omission)."
    )
    return Section("load-section", "Under load", (plot, *notes), lead)


def _names(sweeps: list[LoadSweep]) -> list[str]:
    """Name sweeps by their subjects; several of one subject also by how they differ."""
    subjects = [sweep.subject for sweep in sweeps]
    names: list[str] = []
    for sweep in sweeps:
        name = sweep.subject
        if subjects.count(name) > 1:
            name += f", {sweep.arrivals}, up to {sweep.max_batch}"
        while name in names:
            name += " (again)"
        names.append(name)
    return names


def _capacity(sweep: LoadSweep) -> str:
    wait = (
        f"gathered for {text.number(sweep.max_wait_ms)} ms"
        if sweep.max_wait_ms
        else "without waiting for more"
    )
    gather = (
        f"up to {text.images(sweep.max_batch)} in a run, {wait}"
        if sweep.max_batch > 1
        else "one request in a run"
    )
    end = (
        "every offered load saturated it"
        if sweep.capacity_per_s is None
        else f"not saturated up to {text.number(sweep.capacity_per_s)} requests/s"
    )
    return f"{end}; arrivals as of {_ARRIVALS[sweep.arrivals]}, {gather}."


def _figure(context: Context, sweep: LoadSweep) -> Figure:
    style = context.style(sweep.subject)
    answered = [point for point in sweep.points if point.summary is not None]
    offered = rounded([point.offered_per_s for point in answered])
    data: list[Figure] = []
    for field, name, dash in _PERCENTILES:
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": offered,
                "y": rounded([getattr(point.summary, field) for point in answered]),
                "line": {"color": style.color, "dash": dash, "width": 2},
                "marker": {
                    "size": 9,
                    "symbol": ["circle-open" if point.is_saturated else "circle" for point in answered],
                    "color": style.color,
                    "line": {"width": 2, "color": style.color},
                },
                "legendgroup": field,
                "hovertemplate": f"{name} at %{{x:.4g}}/s: %{{y:.4g}} ms<extra></extra>",
            }
        )
    data.append(
        {
            "type": "bar",
            "x": rounded([point.offered_per_s for point in sweep.points]),
            "y": rounded([_late(point) for point in sweep.points]),
            "yaxis": "y2",
            "marker": {"color": style.color, "opacity": 0.6},
            "hovertemplate": "%{y:.1%} late or refused at %{x:.4g}/s<extra></extra>",
        }
    )
    shapes, notes = [], []
    top = max((point.summary.p99_ms for point in answered if point.summary), default=1.0)
    if sweep.deadline_ms:
        shapes.append(line_at(sweep.deadline_ms, color="var(--bad)", dash="dash", vertical=False))
        notes.append(
            annotation(f"deadline {text.number(sweep.deadline_ms)} ms", xref="paper", x=0.99, y=log10(sweep.deadline_ms),
                       xanchor="right", yanchor="top", font={"size": 11, "color": "var(--bad)"})
        )  # fmt: skip
    if sweep.capacity_per_s is not None:
        shapes.append(line_at(sweep.capacity_per_s, color="var(--ink-2)", dash="dot"))
        notes.append(
            annotation(f"capacity {text.number(sweep.capacity_per_s)}/s", x=sweep.capacity_per_s, yref="paper", y=1.0,
                       xanchor="right", yanchor="top", xshift=-4)
        )  # fmt: skip
    low = max(min((point.summary.median_ms for point in answered if point.summary), default=1.0), 1e-6)
    high = max(top, sweep.deadline_ms or 0.0, low)
    return {
        "data": data,
        "layout": layout(
            480,
            shapes=shapes,
            annotations=notes,
            xaxis=axis("requests/s offered", anchor="y2", rangemode="tozero"),
            yaxis=log_axis("milliseconds (logarithmic)", low * 0.7, high * 1.5, domain=[0.42, 1]),
            yaxis2=axis("late", domain=[0, 0.28], tickformat=".0%", range=[0, 1.04], nticks=3),
        ),
    }  # fmt: skip


def _late(point: LoadPoint) -> float:
    late = point.num_refused if point.num_missed is None else point.num_missed
    return late / point.num_requests if point.num_requests else 0.0


def _describe(sweep: LoadSweep) -> str:
    parts = [
        f"{text.number(point.offered_per_s)} requests/s offered, {text.number(point.achieved_per_s)} answered, "
        + (
            f"99th percentile {text.milliseconds(point.summary.p99_ms)}"
            if point.summary
            else "nothing answered in time"
        )
        + (", saturated" if point.is_saturated else "")
        for point in sweep.points
    ]
    return f"{sweep.subject} under load. {'; '.join(parts)}. {_capacity(sweep)}"


def _table(names: list[str], sweeps: list[LoadSweep]) -> Table:
    rows = tuple(
        (
            name,
            "yes" if point.is_saturated else "no",
            text.number(point.offered_per_s),
            text.number(point.achieved_per_s),
            *(
                text.number(getattr(point.summary, field), 4) if point.summary else "-"
                for field, _, _ in _PERCENTILES
            ),
            text.number(point.summary.max_ms, 4) if point.summary else "-",
            str(point.num_requests),
            "no deadline" if point.num_missed is None else str(point.num_missed),
            str(point.num_refused),
            text.number(point.mean_batch),
            text.number(point.late_ms),
        )
        for name, sweep in zip(names, sweeps, strict=True)
        for point in sweep.points
    )
    columns = (
        "subject",
        "saturated",
        "offered/s",
        "answered/s",
        "median, ms",
        "p95, ms",
        "p99, ms",
        "max, ms",
        "requests",
        "late",
        "refused",
        "mean batch",
        "sent late by, ms",
    )
    return Table("Offered loads", columns, rows, num_text=2)
