"""How far each variant is from the float32 reference, stage by stage."""

from __future__ import annotations

from math import log10

from pargo_export.bundle import Evidence
from pargo_export.inspect import StageAccuracy, worst_by_stage
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.drawing import axis, layout
from pargo_export.report.parts import Choice, Figure, Note, Plot, Section, Table, View

__all__ = ["accuracy"]

_METRICS = ("SQNR", "worst token", "mean cosine")
_LEAST_ERROR = 1e-12  # of 1 - cosine: it has no logarithm at 0
# The same colours in every report: from 60 dB to 10 dB, and a distance of the cosine from 1 of 1e-6 to 0.1.
_ENDS = {"SQNR": (-60, -10), "worst token": (-6, -1), "mean cosine": (-6, -1)}


def accuracy(context: Context) -> Section | None:
    """Draw the errors of variants and subjects at each stage; `None` if nothing was compared."""
    found = {name: worst_by_stage(evidence.stages) for name, evidence in _evidence(context).items()}
    found = {name: stages for name, stages in found.items() if stages}
    notes = () if context.bundle else (Note(_WITHOUT_BUNDLE, "absent"),)
    if not found:
        return Section("accuracy", "Error by stage", notes) if notes else None
    stages = _order(found)
    views = []
    for metric in _METRICS:
        values = {
            name: {stage.stage: _value(stage, metric) for stage in measured}
            for name, measured in found.items()
        }
        if any(value is not None for row in values.values() for value in row.values()):
            views.append(View((metric,), _figure(values, stages, metric), _describe(values, metric)))
    plot = Plot(
        "errors",
        "Error at the stages of the network",
        tuple(views),
        (Choice("Measure", tuple(view.key[0] for view in views)),),
        note="The worst input of each stage. The stronger the colour, the further from the reference. SQNR: power of the reference over "
        "power of the difference; 6 dB are one bit. Cosines are coloured by their distance from 1. "
        "Colours go from 60 dB, or 1e-6, to 10 dB, or 0.1.",
        table=_table(found, stages),
    )
    lead = (
        "Agreement with the float32 graph, not accuracy on a task. Variants: evidence of the bundle, measured when they "
        "were made; subjects: output measured on this machine before their times were taken."
    )
    return Section("accuracy", "Error by stage", (plot, *notes), lead)


_WITHOUT_BUNDLE = (
    "The evidence of the variants is in the bundle, which was not at hand: add --bundle DIRECTORY to pargo-export "
    "report."
)


def _evidence(context: Context) -> dict[str, Evidence]:
    found: dict[str, Evidence] = {}
    if context.bundle is not None:
        found |= {
            f"variant {name}": variant.evidence
            for name, variant in context.bundle.manifest.variants.items()
            if variant.evidence is not None
        }
    return found | {
        subject.name: subject.evidence for subject in context.result.subjects if subject.evidence is not None
    }


def _order(found: dict[str, tuple[StageAccuracy, ...]]) -> list[str]:
    """Merge the stages of all rows; the row with most stages gives the order."""
    longest = sorted(found.values(), key=len, reverse=True)
    return list(dict.fromkeys(stage.stage for stages in longest for stage in stages))


def _value(stage: StageAccuracy, metric: str) -> float | None:
    return {"SQNR": stage.sqnr_db, "worst token": stage.worst_cosine, "mean cosine": stage.mean_cosine}[
        metric
    ]


def _figure(values: dict[str, dict[str, float | None]], stages: list[str], metric: str) -> Figure:
    """Stages from top to bottom, so that a phone has room for the variants side by side."""
    names = list(values)
    cells = [[values[name].get(stage) for name in names] for stage in stages]
    width = max(1, len(names))
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(range(width)),
                "y": list(range(len(stages))),
                "z": [[_shade(value, metric) for value in row] for row in cells],
                "text": [[_write(value, metric) for value in row] for row in cells],
                "texttemplate": "%{text}" if width <= 8 else "",
                "textfont": {"size": 11},
                "customdata": [[f"{text.escape(name)}: {text.escape(stage)}" for name in names] for stage in stages],
                "hovertemplate": "%{customdata}<br>%{text}<extra></extra>",
                "colorscale": [[0, "var(--heat-0)"], [0.5, "var(--heat-1)"], [1, "var(--heat-2)"]],
                "showscale": False,
                "zmin": _ENDS[metric][0],
                "zmax": _ENDS[metric][1],
                "xgap": 2,
                "ygap": 2,
            }
        ],
        "layout": layout(
            120 + 26 * len(stages) + (50 if width > 3 else 0),
            xaxis=axis(side="top", tickvals=list(range(width)), ticktext=[_label(name, width) for name in names],
                       tickangle=-60 if width > 3 else 0, showgrid=False, zeroline=False),
            yaxis=axis(autorange="reversed", tickvals=list(range(len(stages))),
                       ticktext=[text.escape(stage.replace("_", " ")) for stage in stages], showgrid=False,
                       zeroline=False),
        ),
    }  # fmt: skip


def _label(name: str, width: int) -> str:
    """A name above a column: in one line where it is turned, as there are many."""
    return text.wrap(name) if width <= 3 else text.escape(text.shorten(name))


def _shade(value: float | None, metric: str) -> float | None:
    """Larger is worse: minus the decibels, or the logarithm of the distance of a cosine from 1."""
    if value is None:
        return None
    return -value if metric == "SQNR" else log10(max(1 - value, _LEAST_ERROR))


def _write(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value:.1f} dB" if metric == "SQNR" else f"{value:.5f}"


def _describe(values: dict[str, dict[str, float | None]], metric: str) -> str:
    parts = []
    for name, row in values.items():
        known = {stage: value for stage, value in row.items() if value is not None}
        if known:
            worst = min(known, key=lambda stage: known[stage])
            parts.append(f"{name}: worst at {worst}, {_write(known[worst], metric)}")
    return f"{metric} by stage. {'; '.join(parts)}."


def _table(found: dict[str, tuple[StageAccuracy, ...]], stages: list[str]) -> Table:
    rows = tuple(
        (
            name,
            stage.stage,
            stage.worst_source,
            "-" if stage.sqnr_db is None else f"{stage.sqnr_db:.1f}",
            f"{stage.worst_cosine:.6f}",
            "-" if stage.mean_cosine is None else f"{stage.mean_cosine:.6f}",
            text.number(stage.max_abs),
        )
        for name, measured in found.items()
        for stage in sorted(measured, key=lambda item: stages.index(item.stage))
    )
    columns = (
        "variant or subject",
        "stage",
        "worst input",
        "SQNR, dB",
        "worst token",
        "mean cosine",
        "max abs",
    )
    return Table("Error by stage", columns, rows, num_text=3)
