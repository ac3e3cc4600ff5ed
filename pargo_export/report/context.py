"""What the sections look things up in: the result, the bundle, and how each subject is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pargo_export.bench.records import BenchResult, Boundary, Measurement, Subject
from pargo_export.bundle import Bundle
from pargo_export.report.parts import LegendEntry

__all__ = ["TOTALS", "Context", "Style"]

_NUM_COLORS, _NUM_GRAYS = 8, 4  # series-0..., baseline-0... in report.css
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
# From the whole to the part: the first that was measured stands for a subject.
TOTALS: tuple[Boundary, ...] = ("end_to_end", "run", "compute")


@dataclass(frozen=True)
class Style:
    """How a subject is drawn, everywhere the same; a baseline is gray.

    Attributes:
        group: Its `legendgroup`.
        color: `var(--series-0)`.
        dash: `dash` of plotly.js.
        symbol: `symbol` of plotly.js.
    """

    group: str
    color: str
    dash: str
    symbol: str


@dataclass(frozen=True)
class Context:
    """One report.

    Attributes:
        result: What was found.
        bundle: The bundle; `None` if it is not at hand.
    """

    result: BenchResult
    bundle: Bundle | None

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How each subject is drawn."""
        styles, counts = {}, {False: 0, True: 0}
        for index, subject in enumerate(self.result.subjects):
            rank = counts[subject.is_baseline]
            counts[subject.is_baseline] += 1
            kind, size = ("baseline", _NUM_GRAYS) if subject.is_baseline else ("series", _NUM_COLORS)
            styles[subject.name] = Style(
                group=f"s{index}",
                color=f"var(--{kind}-{rank % size})",
                # A colour that comes again has another dash; baselines differ in both, grays being alike.
                dash=_DASHES[(rank if subject.is_baseline else rank // size) % len(_DASHES)],
                symbol=_SYMBOLS[index % len(_SYMBOLS)],
            )
        return styles

    def style(self, subject: str) -> Style:
        """How a subject is drawn; one that the result does not list is drawn as the first."""
        return self.styles.get(subject, Style("other", "var(--series-0)", "solid", "circle"))

    def legend(self, names: Iterator[str] | list[str], shape: str = "box") -> tuple[LegendEntry, ...]:
        """Return the legend of some subjects, in the order of the result."""
        wanted = set(names)
        return tuple(
            LegendEntry(style.group, name, style.color, shape)
            for name, style in self.styles.items()
            if name in wanted
        )

    @cached_property
    def place(self) -> str:
        """The devices that subjects ran on; a CPU by the name of its model."""
        machine = self.result.environment
        if machine.jetson is not None:
            return machine.jetson.model
        devices = dict.fromkeys(subject.device for subject in self.result.subjects)
        names = [machine.cpu.model if device in {"", "CPU"} else device for device in devices]
        return ", ".join(dict.fromkeys(names)) or machine.cpu.model

    @cached_property
    def measured(self) -> tuple[Subject, ...]:
        """Subjects with times."""
        names = {item.subject for item in self.result.measurements}
        return tuple(subject for subject in self.result.subjects if subject.name in names)

    def find(self, subject: str, batch: int, boundary: Boundary, concurrency: int = 1) -> Measurement | None:
        """Return a measurement; `None` if there is none."""
        return self._index.get((subject, batch, boundary, concurrency))

    @cached_property
    def _index(self) -> dict[tuple[str, int, Boundary, int], Measurement]:
        return {
            (item.subject, item.batch, item.boundary, item.concurrency): item
            for item in self.result.measurements
        }

    @cached_property
    def total(self) -> Boundary | None:
        """The widest boundary that every subject with times has; `None` without times."""
        for boundary in TOTALS:
            having = {item.subject for item in self.result.measurements if item.boundary == boundary}
            if having and having == {subject.name for subject in self.measured}:
                return boundary
        found = [item.boundary for item in self.result.measurements]
        return next((boundary for boundary in TOTALS if boundary in found), found[0] if found else None)
