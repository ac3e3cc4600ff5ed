"""What all plots share: layout, axes, and the thinning of samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.report.parts import Figure

__all__ = [
    "annotation",
    "axis",
    "bulk",
    "inside",
    "layout",
    "line_at",
    "log_axis",
    "names_axis",
    "rounded",
    "rows",
    "thin",
]

Array = NDArray[np.float64]


def layout(height: int, **values: Any) -> Figure:
    """Layout of a figure; backgrounds are those of the page.

    Args:
        height: Pixels.
        values: Further attributes of plotly.js, such as axes.
    """
    base: Figure = {
        "height": height,
        "margin": {"l": 8, "r": 14, "t": 14, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 12, "color": "var(--ink-2)"},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--line-strong)",
            "font": {"color": "var(--ink)", "size": 12},
            "align": "left",
        },
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
    }
    return base | values


def axis(title: str = "", **values: Any) -> Figure:
    """An axis: fixed (a page must scroll on a phone), with a quiet grid.

    Args:
        title: What it measures, with its unit.
        values: Further attributes of plotly.js.
    """
    base: Figure = {
        "title": {"text": title, "font": {"size": 12, "color": "var(--ink-2)"}, "standoff": 8},
        "fixedrange": True,
        "automargin": True,
        "gridcolor": "var(--grid)",
        "zerolinecolor": "var(--grid)",
        "linecolor": "var(--line-strong)",
        "tickcolor": "var(--line-strong)",
        "tickfont": {"size": 11, "color": "var(--ink-2)"},
    }
    return base | values


def log_axis(title: str, low: float, high: float, **values: Any) -> Figure:
    """A logarithmic axis from `low` to `high`, both positive, with whole numbers at its ticks (plotly.js writes 2 and 5).

    Args:
        title: What it measures, with its unit.
        low: Lower end.
        high: Upper end.
        values: Further attributes of plotly.js.
    """
    ticks = _log_ticks(low, high)
    return axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:,.10g}" for tick in ticks],
        **values,
    )


def inside(span: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an axis, a little inside of it: a mark on the very end is not drawn."""
    room = 0.004 * (span[1] - span[0])
    return span[0] + room, span[1] - room


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range: every 1, 2 and 5 for a wide one, evenly spaced for a narrow one."""
    if high / low < 4:
        step = 10 ** math.floor(math.log10(high - low))
        step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * factor) <= 6)
        return [
            float(f"{step * index:.6g}")
            for index in range(math.ceil(low / step), math.floor(high / step) + 1)
        ]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    found = [float(f"{factor * 10.0**power:.6g}") for power in powers for factor in factors]
    return [tick for tick in found if low <= tick <= high]


def bulk(samples: Array) -> tuple[float, float]:
    """Return the range that an axis should span, so that a few outliers do not flatten the others; they are marked.

    The samples within six interquartile ranges of the quartiles, at least 1 % of the median around them.
    """
    low, middle, high = (float(value) for value in np.percentile(samples, [25, 50, 75]))
    reach = max(6 * (high - low), 0.01 * middle, 1e-9)
    bottom, top = max(float(samples.min()), low - reach), min(float(samples.max()), high + reach)
    room = max(0.04 * (top - bottom), 0.002 * middle, 1e-9)
    return bottom - room, top + room


def names_axis(count: int) -> Figure:
    """The vertical axis of horizontal bars: `count` names, the first one at the top."""
    return axis(type="category", range=[count - 0.5, -0.5], showgrid=False)


def rows(count: int, gap: float = 0.32) -> list[tuple[float, float]]:
    """Domains of `count` axes on top of each other, the first one at the top; `gap` is a share of a row."""
    height = 1 / (count + gap * (count - 1)) if count else 1.0
    tops = [1 - index * height * (1 + gap) for index in range(count)]
    return [(max(0.0, top - height), min(1.0, top)) for top in tops]


def line_at(
    value: float,
    *,
    color: str,
    dash: str = "solid",
    vertical: bool = True,
    suffix: str = "",
    width: float = 1.5,
) -> Figure:
    """A line across a row; `suffix` is that of its axes (`""`, `"2"`)."""
    along, across = ("x", "y") if vertical else ("y", "x")
    return {
        "type": "line",
        f"{along}ref": f"{along}{suffix}",
        f"{across}ref": f"{across}{suffix} domain",
        f"{along}0": value,
        f"{along}1": value,
        f"{across}0": 0,
        f"{across}1": 1,
        "line": {"color": color, "width": width, "dash": dash},
        "layer": "above",
    }


def annotation(text: str, **values: Any) -> Figure:
    """A text in the plot, without an arrow; `text` must be escaped."""
    return {"text": text, "showarrow": False, "font": {"size": 11, "color": "var(--ink-2)"}} | values


def rounded(values: Any, digits: int = 5) -> list[float]:
    """Values with some significant digits: what a screen can show."""
    array = np.asarray(values, dtype=np.float64)
    return [float(f"{value:.{digits}g}") for value in array.ravel()]


def thin(samples: Array, most: int) -> NDArray[np.intp]:
    """Choose at most about `most` samples, in order: every n-th, and always the ten smallest and largest."""
    if len(samples) <= most:
        return np.arange(len(samples))
    regular = np.linspace(0, len(samples) - 1, most).astype(np.intp)
    order = np.argsort(samples, kind="stable")
    return np.unique(np.concatenate([regular, order[:10], order[-10:]]))
