"""How to read the report: the boundaries, the clocks, and what the numbers do not say."""

from __future__ import annotations

from pargo_export.bench.records import BOUNDARIES
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.parts import Note, Section, Table

__all__ = ["reading"]

_NOTES = (
    (
        "Host clock: time.perf_counter_ns around the call, so it includes what Python and the library do. CUDA events: times "
        "in the stream of the GPU, without the way there."
    ),
    (
        "Median and its interval describe the usual run; p95 and p99 the tail. A percentile needs runs: below 100 of them the "
        "99th is little more than the slowest. Nothing is discarded: outliers are counted, and drawn."
    ),
    (
        "The interval of a ratio comes from rounds in which both subjects were measured in turns. Times of two separate "
        "runs, or of two machines, must not be compared by eye: --compare does it with statistics."
    ),
    "No times are given for a subject whose output missed its limits.",
    "A closed loop (latency, rounds, stages) waits for each answer. It says nothing about queues: see under load.",
)


def reading(context: Context) -> Section:
    """Explain the boundaries and the method."""
    seen = {item.boundary for item in context.result.measurements}
    rows = tuple(
        (text.BOUNDARY_NAMES[boundary], meaning, "yes" if boundary in seen else "no")
        for boundary, meaning in BOUNDARIES.items()
    )
    table = Table(
        "Boundaries", ("boundary", "from where to where", "measured here"), rows, num_text=3, is_open=True
    )
    return Section("reading", "How to read this", (table, *(Note(note) for note in _NOTES)))
