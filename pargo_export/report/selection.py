"""Measurements by what the reader chooses: boundary, batch, number of callers."""

from __future__ import annotations

from pargo_export.bench.records import BOUNDARIES, Measurement
from pargo_export.report import text
from pargo_export.report.context import TOTALS, Context
from pargo_export.report.parts import Choice

__all__ = ["choices", "group", "key_of"]

Key = tuple[str, ...]


def key_of(item: Measurement) -> Key:
    """Boundary, batch and callers, as they are shown."""
    callers = "1 caller" if item.concurrency == 1 else f"{item.concurrency} callers"
    return text.BOUNDARY_NAMES[item.boundary], text.images(item.batch), callers


def group(context: Context) -> dict[Key, list[Measurement]]:
    """Group the measurements by their keys: the widest boundary, smallest batch and fewest callers first."""
    order = list(dict.fromkeys([*TOTALS, *BOUNDARIES]))
    rank = {name: index for index, name in enumerate(context.styles)}
    found: dict[Key, list[Measurement]] = {}
    for item in sorted(
        (item for item in context.result.measurements if item.samples_ms),
        key=lambda item: (
            order.index(item.boundary),
            item.batch,
            item.concurrency,
            rank.get(item.subject, len(rank)),
        ),
    ):
        found.setdefault(key_of(item), []).append(item)
    return found


def choices(groups: dict[Key, list[Measurement]]) -> tuple[Choice, ...]:
    """What the reader can choose between those groups."""
    columns = zip(*groups, strict=True)
    return tuple(
        Choice(label, tuple(dict.fromkeys(values)))
        for label, values in zip(("Boundary", "Batch", "Concurrency"), columns, strict=True)
    )
