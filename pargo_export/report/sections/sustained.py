"""Long runs: latency beside clocks, temperature and power."""

from __future__ import annotations

from pargo_export.bench.records import SustainedRun
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import axis, layout, rounded, rows
from pargo_export.report.parts import Choice, Figure, LegendEntry, Note, Plot, Section, Table, View

__all__ = ["sustained"]

# What was sampled beside the runs, if it was.
_SENSORS = (
    ("clock_mhz", "clock, MHz", "var(--stage-1)"),
    ("temperature_c", "temperature, °C", "var(--stage-3)"),
    ("power_w", "power, W", "var(--stage-0)"),
)


def sustained(context: Context) -> Section | None:
    """Draw each long run over time; `None` without one."""
    runs = [run for run in context.result.sustained if run.windows]
    if not runs:
        return None
    names = [f"{run.subject}, batch {run.batch}" for run in runs]
    names = [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]
    plot = Plot(
        "sustained",
        "Over time",
        tuple(
            View((name,), _figure(context, run), _describe(run))
            for name, run in zip(names, runs, strict=True)
        ),
        (Choice("Run", tuple(names)),),
        (
            LegendEntry("median", "median of a window", "var(--ink-2)", "line"),
            LegendEntry("p99", "p99 of a window", "var(--ink-2)", "dot"),
        ),
        note="The axes do not begin at zero: the question is what changes.",
        table=_table(names, runs),
    )
    notes = tuple(Note(f"{name}: {_verdict(run)}") for name, run in zip(names, runs, strict=True))
    lead = "One subject without a pause: does it stay as fast as it began, once the device is warm?"
    return Section("sustained-section", "Sustained run", (plot, *notes), lead)


def _figure(context: Context, run: SustainedRun) -> Figure:
    style = context.style(run.subject)
    times = rounded([window.start_s for window in run.windows])
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": times,
            "y": rounded([getattr(window, field) for window in run.windows]),
            "line": {"color": style.color, "width": width, "dash": dash},
            "legendgroup": group,
            "hovertemplate": f"{group} at %{{x:.0f}} s: %{{y:.4g}} ms<extra></extra>",
        }
        for field, group, dash, width in (("median_ms", "median", "solid", 2), ("p99_ms", "p99", "dot", 1.5))
    ]
    present = [
        sensor for sensor in _SENSORS if any(getattr(window, sensor[0]) is not None for window in run.windows)
    ]
    domains = rows(1 + len(present), 0.16)
    axes = {"yaxis": axis("latency, ms", domain=list(domains[0]), nticks=5)}
    for index, ((field, title, color), domain) in enumerate(zip(present, domains[1:], strict=True), start=2):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "connectgaps": False,
                "x": times,
                "y": [getattr(window, field) for window in run.windows],
                "yaxis": f"y{index}",
                "line": {"color": color, "width": 1.75},
                "hovertemplate": f"{title} at %{{x:.0f}} s: %{{y:.4g}}<extra></extra>",
            }
        )
        axes[f"yaxis{index}"] = axis(title, domain=list(domain), nticks=4)
    last = "y" if not present else f"y{1 + len(present)}"
    return {
        "data": data,
        "layout": layout(
            120 + 120 * (1 + len(present)), xaxis=axis("seconds since the begin", anchor=last), **axes
        ),
    }


def _verdict(run: SustainedRun) -> str:
    change = run.slowdown - 1
    found = "slower" if change > 0 else "faster"
    throttled = (
        "the device cannot say whether it throttled"
        if run.throttled is None
        else f"the device throttled: {text.join(run.throttled)}"
        if run.throttled
        else "the device reported no throttling"
    )
    low, high = run.interval.low, run.interval.high
    return (
        f"the last fifth was {abs(change):.1%} {found} than the first (ratio {run.slowdown:.3f}, "
        f"{text.level(run.interval)} {low:.3f} to {high:.3f}) over {text.number(run.duration_s)} s; {throttled}."
    )


def _describe(run: SustainedRun) -> str:
    medians = [window.median_ms for window in run.windows]
    return (
        f"{run.subject}, {len(run.windows)} windows, medians from {text.milliseconds(min(medians))} to "
        f"{text.milliseconds(max(medians))}; {_verdict(run)}"
    )


def _table(names: list[str], runs: list[SustainedRun]) -> Table:
    found = tuple(
        (
            name,
            text.number(window.start_s),
            text.number(window.median_ms, 4),
            text.number(window.p99_ms, 4),
            str(window.num_runs),
            text.number(window.clock_mhz),
            text.number(window.temperature_c),
            text.number(window.power_w),
        )
        for name, run in zip(names, runs, strict=True)
        for window in run.windows
    )
    columns = (
        "run",
        "start, s",
        "median, ms",
        "p99, ms",
        "runs",
        "clock, MHz",
        "temperature, °C",
        "power, W",
    )
    return Table("Windows", columns, found)
