"""Latency: histograms and cumulative shares, of every subject, batch size and boundary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pargo_export.bench.records import BOUNDARIES, Measurement
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import (
    annotation,
    axis,
    bulk,
    inside,
    layout,
    line_at,
    log_axis,
    rounded,
    rows,
    thin,
)
from pargo_export.report.parts import Figure, LegendEntry, Plot, Section, Table, View
from pargo_export.report.selection import choices, group, key_of

__all__ = ["distributions"]

_NUM_BINS = 48
_ROW, _GAP, _FRAME = 136, 0.85, 44  # pixels of a histogram, space between two as a share of one, margins
_MOST_POINTS = 400
_LEAST_MS = 1e-6  # a logarithm needs more than nothing


def distributions(context: Context) -> Section | None:
    """Draw the times of all runs; `None` without any."""
    groups = group(context)
    if not groups:
        return None
    asked = choices(groups)
    names = context.legend([subject.name for subject in context.measured])
    histogram = Plot(
        "histogram",
        "Histogram",
        tuple(View(key, _histogram(context, items), _describe(items)) for key, items in groups.items()),
        asked,
        note="Each subject has its own axis. Solid line: median, dashed: 99th percentile, if it is on the axis. Ticks "
        "below the bars are single runs outside of Tukey's fences, arrows those beyond the axis. They count everywhere.",
        table=_table(context),
    )
    ecdf = Plot(
        "ecdf",
        "Cumulative share of the runs",
        tuple(View(key, _ecdf(context, items), _describe(items)) for key, items in groups.items()),
        asked,
        tuple(LegendEntry(entry.group, entry.name, entry.color, "line") for entry in names),
        note="Read across at 0.5 for medians, at 0.99 for the tail. Further left and steeper is better.",
    )
    lead = "Every timed run, outliers included. The boundary says from where to where a time is taken."
    return Section("latency", "Latency", (histogram, ecdf), lead)


def _histogram(context: Context, items: list[Measurement]) -> Figure:
    data, shapes, notes = [], [], []
    axes: Figure = {}
    for index, (item, domain) in enumerate(zip(items, rows(len(items), _GAP), strict=True)):
        suffix = "" if index == 0 else str(index + 1)
        samples = np.asarray(item.samples_ms)
        summary, style = item.summary, context.style(item.subject)
        low, high = bulk(samples)
        counts, edges = np.histogram(samples, bins=_NUM_BINS, range=(low, high))
        places = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        data.append(
            {
                "type": "bar",
                "x": rounded((edges[1:] + edges[:-1]) / 2, 7),
                "y": [int(count) for count in counts],
                "width": float(edges[1] - edges[0]) * 0.92,
                "marker": {"color": style.color, "line": {"width": 0}},
                "hovertemplate": "%{x:.4g} ms: %{y} runs<extra></extra>",
                **places,
            }
        )
        data += [mark | places for mark in _outliers(samples, (low, high), style.color, int(counts.max()))]
        shapes += [
            line_at(value, color=color, dash=dash, suffix=suffix)
            for value, color, dash in (
                (summary.median_ms, "var(--ink)", "solid"),
                (summary.p99_ms, "var(--ink-2)", "dash"),
            )
            if low <= value <= high
        ]
        notes.append(
            annotation(
                f"<b>{text.escape(text.shorten(item.subject))}</b><br>{_caption(item, samples, high)}",
                xref="paper", yref="paper", x=0, y=domain[1], xanchor="left", yanchor="bottom", align="left",
            )
        )  # fmt: skip
        axes[f"xaxis{suffix}"] = axis(
            "milliseconds" if index == len(items) - 1 else "",
            anchor=f"y{suffix}",
            range=[low, high],
            nticks=7,
        )
        axes[f"yaxis{suffix}"] = axis(
            anchor=f"x{suffix}", domain=list(domain), showticklabels=False, showgrid=False, ticks=""
        )
    return {
        "data": data,
        "layout": layout(_FRAME + _ROW * len(items), shapes=shapes, annotations=notes, bargap=0, **axes)
        | {"margin": {"l": 4, "r": 14, "t": 40, "b": 40}},
    }


def _caption(item: Measurement, samples: NDArray[np.float64], high: float) -> str:
    beyond = int((samples > high).sum())
    more = f"; {beyond} beyond, up to {text.milliseconds(item.summary.max_ms)}" if beyond else ""
    return f"{text.milliseconds(item.summary.median_ms)}, p99 {text.milliseconds(item.summary.p99_ms)}{more}"


def _outliers(
    samples: NDArray[np.float64], span: tuple[float, float], color: str, tallest: int
) -> list[Figure]:
    """Mark runs outside of Tukey's fences below the bars; those beyond the axis by an arrow at its end."""
    low, high = np.percentile(samples, [25, 75])
    reach = 1.5 * (high - low)
    found = samples[(samples < low - reach) | (samples > high + reach)]
    if not len(found):
        return []
    found = found[thin(found, _MOST_POINTS)]
    symbols = [
        "triangle-left" if value < span[0] else "triangle-right" if value > span[1] else "line-ns"
        for value in found
    ]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": rounded(np.clip(found, *inside(span)), 7),
            "y": [-0.13 * tallest] * len(found),
            "customdata": rounded(found, 7),
            "cliponaxis": False,
            "marker": {"symbol": symbols, "size": 8, "color": color, "line": {"width": 1.5, "color": color}},
            "hovertemplate": "outlier: %{customdata:.4g} ms<extra></extra>",
        }
    ]


def _ecdf(context: Context, items: list[Measurement]) -> Figure:
    data = []
    for item in items:
        samples = np.sort(np.asarray(item.samples_ms))
        shares = np.arange(1, len(samples) + 1) / len(samples)
        kept = thin(samples, _MOST_POINTS)
        style = context.style(item.subject)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": rounded(samples[kept], 7),
                "y": rounded(shares[kept], 4),
                "line": {"shape": "hv", "color": style.color, "dash": style.dash, "width": 2},
                "legendgroup": style.group,
                "hovertemplate": f"{text.escape(item.subject)}<br>%{{y:.1%}} within %{{x:.4g}} ms<extra></extra>",
            }
        )
    shapes = [
        line_at(share, color="var(--line-strong)", dash="dot", vertical=False, width=1)
        for share in (0.5, 0.99)
    ]
    low = max(min(item.summary.min_ms for item in items), _LEAST_MS)
    high = max(*(item.summary.max_ms for item in items), low * 1.1)
    return {
        "data": data,
        "layout": layout(
            320,
            xaxis=log_axis("milliseconds (logarithmic)", low * 0.97, high * 1.03),
            yaxis=axis(
                "share of the runs", range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 0.99]
            ),
            shapes=shapes,
        ),
    }


def _describe(items: list[Measurement]) -> str:
    parts = [
        f"{item.subject} median {text.milliseconds(item.summary.median_ms)}, 99th percentile "
        f"{text.milliseconds(item.summary.p99_ms)}, {item.summary.num_outliers} outliers"
        for item in items
    ]
    return f"Times, {', '.join(key_of(items[0]))}: {'; '.join(parts)}."


def _table(context: Context) -> Table:
    rows_ = tuple(
        (
            item.subject,
            text.where(item),
            *(
                text.number(value, 4)
                for value in (
                    item.summary.min_ms,
                    item.summary.mean_ms,
                    item.summary.median_ms,
                )
            ),
            text.interval(item.summary.median_interval),
            *(
                text.number(value, 4)
                for value in (
                    item.summary.p90_ms,
                    item.summary.p95_ms,
                    item.summary.p99_ms,
                    item.summary.max_ms,
                    item.summary.std_ms,
                )
            ),
            text.number(item.images_per_s),
            str(item.summary.num_samples),
            str(item.summary.num_outliers),
            "yes" if item.steadiness.is_steady else f"no: {item.steadiness.reason}",
        )
        for item in sorted(
            context.result.measurements,
            key=lambda item: (item.batch, item.concurrency, list(BOUNDARIES).index(item.boundary)),
        )
    )
    columns = (
        "subject",
        "boundary, clock, batch",
        "min",
        "mean",
        "median",
        "interval of the median",
        "p90",
        "p95",
        "p99",
        "max",
        "std",
        "images/s",
        "runs",
        "outliers",
        "steady",
    )
    levels = [
        item.summary.median_interval for item in context.result.measurements if item.summary.median_interval
    ]
    method = f"; interval: {levels[0].level:.0%}, {levels[0].method}" if levels else ""
    return Table(f"Times in milliseconds{method}", columns, rows_, num_text=2)
