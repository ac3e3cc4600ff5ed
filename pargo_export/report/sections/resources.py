"""Memory of each subject, and energy of an image."""

from __future__ import annotations

from pargo_export.bench.records import Measurement, Subject
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import axis, layout, names_axis, rounded
from pargo_export.report.parts import Choice, Figure, LegendEntry, Note, Plot, Section, Table, View

__all__ = ["energy", "memory"]

_KINDS = (
    ("peak_rss_bytes", "peak resident", "var(--stage-2)"),
    ("loaded_rss_bytes", "resident when ready", "var(--stage-1)"),
    ("gpu_peak_bytes", "peak on the GPU", "var(--stage-3)"),
)


def memory(context: Context) -> Section | None:
    """Draw the memory of each process; `None` if nothing is known about it."""
    found = [
        subject
        for subject in context.result.subjects
        if any(getattr(subject.memory, field) is not None for field, _, _ in _KINDS)
    ]
    reasons = _reasons(context, "memory")
    if not found:
        return Section("memory-section", "Memory", reasons) if reasons else None
    present = [
        kind for kind in _KINDS if any(getattr(subject.memory, kind[0]) is not None for subject in found)
    ]
    plot = Plot(
        "memory",
        "Memory of each process",
        (View((), _memory_figure(found, present), _describe_memory(found)),),
        legend=tuple(LegendEntry(field, name, color) for field, name, color in present),
        table=Table(
            "Memory",
            ("subject", *(name for _, name, _ in _KINDS), "CPU and GPU share"),
            tuple(
                (
                    subject.name,
                    *(text.memory(getattr(subject.memory, field)) for field, _, _ in _KINDS),
                    "yes: counted twice" if subject.memory.is_unified else "no",
                )
                for subject in found
            ),
        ),
    )
    lead = "Every subject has a process of its own; the libraries that it loads are counted."
    return Section("memory-section", "Memory", (plot, *reasons), lead)


def energy(context: Context) -> Section | None:
    """Draw the energy of an image; where no power could be read, say why."""
    found = [item for item in context.result.measurements if item.energy is not None]
    reasons = _reasons(context, "energy", "power")
    if not found:
        absent = reasons or (
            Note("Not available: this result has no power samples, and does not say why.", "absent"),
        )
        return Section("energy-section", "Energy", absent)
    keys = list(dict.fromkeys(_setting(item) for item in found))
    plot = Plot(
        "energy",
        "Energy of an image",
        tuple(
            View((key,), _energy_figure(context, items), _describe_energy(items))
            for key in keys
            if (items := [item for item in found if _setting(item) == key])
        ),
        (Choice("Setting", tuple(keys)),),
        note="Mean power of the whole board or package while the runs went on, idle included, times the time of a run, "
        "by the images in it.",
        table=_energy_table(found),
    )
    return Section("energy-section", "Energy", (plot, *reasons))


def _reasons(context: Context, *names: str) -> tuple[Note, ...]:
    """Say what could not be measured, and why."""
    return tuple(
        Note(f"Not available, {name}: {reason}", "absent")
        for name, reason in context.result.unavailable.items()
        if any(word in name.lower() for word in names)
    )


def _memory_figure(found: list[Subject], present: list[tuple[str, str, str]]) -> Figure:
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [text.wrap(subject.name) for subject in found],
            "x": [_megabytes(getattr(subject.memory, field)) for subject in found],
            "legendgroup": field,
            "marker": {"color": color},
            "hovertemplate": f"{name}: %{{x:,.0f}} MB<extra></extra>",
        }
        for field, name, color in present
    ]
    return {
        "data": data,
        "layout": layout(
            76 + (22 * len(present) + 22) * len(found),
            barmode="group",
            bargap=0.3,
            xaxis=axis("MB", rangemode="tozero"),
            yaxis=names_axis(len(found)),
        ),
    }


def _megabytes(value: int | None) -> float | None:
    return None if value is None else rounded([value / 1e6])[0]


def _describe_memory(found: list[Subject]) -> str:
    parts = [
        f"{subject.name}: "
        + ", ".join(f"{name} {text.memory(getattr(subject.memory, field))}" for field, name, _ in _KINDS)
        for subject in found
    ]
    return f"Memory. {'; '.join(parts)}."


def _setting(item: Measurement) -> str:
    setting = f"{text.BOUNDARY_NAMES[item.boundary]}, batch {item.batch}"
    return setting if item.concurrency == 1 else f"{setting}, {item.concurrency} callers"


def _energy_figure(context: Context, items: list[Measurement]) -> Figure:
    known = [(item, item.energy) for item in items if item.energy is not None]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": rounded([used.energy_per_image_j for _, used in known]),
                "y": [text.wrap(item.subject) for item, _ in known],
                "width": 0.5,
                "marker": {"color": [context.style(item.subject).color for item, _ in known]},
                "text": [f"{text.number(used.energy_per_image_j)} J" for _, used in known],
                "textposition": "auto",
                "customdata": rounded([used.mean_power_w for _, used in known]),
                "hovertemplate": "%{x:.3g} J an image, %{customdata:.3g} W on average<extra></extra>",
            }
        ],
        "layout": layout(
            76 + 46 * len(known),
            xaxis=axis("joules an image", rangemode="tozero"),
            yaxis=names_axis(len(known)),
        ),
    }


def _describe_energy(items: list[Measurement]) -> str:
    parts = [
        f"{item.subject} {text.number(item.energy.energy_per_image_j)} joules an image"
        for item in items
        if item.energy
    ]
    return f"Energy, {_setting(items[0])}: {'; '.join(parts)}."


def _energy_table(found: list[Measurement]) -> Table:
    rows = tuple(
        (
            item.subject,
            _setting(item),
            used.source,
            text.number(used.energy_per_image_j),
            text.number(used.mean_power_w),
            text.number(used.idle_power_w),
            str(used.num_samples),
        )
        for item in found
        if (used := item.energy) is not None
    )
    columns = ("subject", "setting", "source", "J an image", "mean power, W", "idle power, W", "samples")
    return Table("Energy", columns, rows, num_text=3)
