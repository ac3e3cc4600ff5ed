"""How the result of a benchmark looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from pargo_export.agreement import describe_agreement
from pargo_export.cli import layout

if TYPE_CHECKING:
    from pargo_export.bench import BenchResult, Regressions
    from pargo_export.bench.records import (
        Comparison,
        Energy,
        Interval,
        LoadSweep,
        Measurement,
        Subject,
        SustainedRun,
    )

__all__ = ["render_regressions", "render_result"]


def render_result(result: BenchResult) -> Iterator[RenderableType]:
    """Lay out a result: gate, times, ratios, load, what they cost, and what makes them doubtful."""
    yield layout.heading("Subjects")
    for subject in result.subjects:
        yield _gate(subject)
    yield from _times(result.measurements)
    yield from _ratios(result.comparisons)
    for load in result.loads:
        yield from _load(load)
    if result.sustained:
        yield layout.heading("Without a pause")
        yield layout.facts((run.subject, _sustained(run)) for run in result.sustained)
    yield layout.heading("Memory and energy")
    yield layout.facts(_costs(result))
    yield layout.heading("About these numbers")
    yield layout.facts(_about(result))


def render_regressions(found: Regressions) -> Iterator[RenderableType]:
    """Lay out a comparison with an earlier result."""
    yield layout.heading(f"Beside the earlier result (allowed: {found.fail_above:+.1%})")
    for subject, changes in groupby(found.changes, lambda change: change.subject):
        rows = (
            (
                f"  batch {change.batch} {change.boundary}",
                change.clock,
                layout.figure(change.old_ms),
                layout.figure(change.new_ms),
                f"{change.ratio:.3f}",
                _interval(change.interval),
                change.status,
            )
            for change in changes
        )
        yield _name(subject)
        columns = ("  boundary", "clock", "was ms", "is ms", "ratio", "interval", "")
        yield layout.table(columns, rows, num_left=2)
    doubts = (
        ("suspected", f"{change.subject}, batch {change.batch} {change.boundary}: {change.doubt}")
        for change in found.suspected
    )
    missing = (("missing", text) for text in found.missing)
    yield layout.facts([*doubts, *missing, *_warnings(found.warnings)])
    verdict = (
        f" {len(found.proven)} proven regression(s), {len(found.suspected)} suspected"
        if found.proven or found.suspected
        else " nothing became slower than allowed"
    )
    yield Text.assemble(layout.mark(not found.proven), verdict)


def _gate(subject: Subject) -> Text:
    """Say whether a subject computes what it should."""
    text = subject.failure or (describe_agreement(subject.evidence) if subject.evidence else "not compared")
    baseline = " (baseline)" if subject.is_baseline else ""
    return Text.assemble("  ", layout.mark(subject.failure is None), f" {subject.name}{baseline}: {text}")


def _times(measurements: Iterable[Measurement]) -> Iterator[RenderableType]:
    def group(item: Measurement) -> tuple[int, int]:
        return item.batch, item.concurrency

    for (batch, concurrency), items in groupby(sorted(measurements, key=group), group):
        callers = "" if concurrency == 1 else f", {concurrency} callers at once"
        yield layout.heading(f"Batch {batch}{callers}, milliseconds")
        for subject, own in groupby(sorted(items, key=lambda item: item.subject), lambda item: item.subject):
            yield _name(subject)
            columns = ("  boundary", "clock", "median", "95 % interval", "p99", "images/s", "runs")
            yield layout.table(columns, map(_row, own), num_left=2)


def _name(subject: str) -> Text:
    """The name of a subject, on a line of its own: it may have the path of a bundle in it."""
    return Text(f"  {subject}", style="cyan")


def _row(item: Measurement) -> tuple[str, ...]:
    summary = item.summary
    return (
        f"  {item.boundary}",
        item.clock,
        layout.figure(summary.median_ms) + ("" if item.steadiness.is_steady else " ~"),
        _interval(summary.median_interval),
        layout.figure(summary.p99_ms),
        layout.figure(item.images_per_s),
        str(summary.num_samples),
    )


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{layout.figure(interval.low)} - {layout.figure(interval.high)}"


def _ratios(comparisons: Iterable[Comparison]) -> Iterator[RenderableType]:
    for baseline, items in groupby(comparisons, lambda item: item.baseline):
        yield layout.heading(f"Time beside {baseline}: below 1 is faster")
        for candidate, own in groupby(items, lambda item: item.candidate):
            rows = (
                (
                    f"  batch {item.batch}" + (f" x {item.concurrency}" if item.concurrency > 1 else ""),
                    item.boundary,
                    f"{item.ratio:.3f}",
                    f"{item.interval.low:.3f} - {item.interval.high:.3f}",
                    item.verdict,
                )
                for item in own
            )
            yield _name(candidate)
            columns = ("  batch", "boundary", "ratio", "95 % interval", "")
            yield layout.table(columns, rows, num_left=2)


def _load(load: LoadSweep) -> Iterator[RenderableType]:
    deadline = "" if load.deadline_ms is None else f", deadline {load.deadline_ms:g} ms"
    yield layout.heading(f"{load.subject}: {load.arrivals} arrivals{deadline}")
    rows = (
        (
            f"{layout.figure(point.offered_per_s)}/s",
            f"{layout.figure(point.achieved_per_s)}/s",
            *(
                layout.figure(value)
                for value in ((point.summary.median_ms, point.summary.p99_ms) if point.summary else ())
            ),
            *(() if point.summary else ("-", "-")),
            "-" if point.num_missed is None else f"{point.num_missed / point.num_requests:.1%}",
            "too much" if point.is_saturated else "",
        )
        for point in load.points
    )
    yield layout.table(("offered", "answered", "median ms", "p99 ms", "missed", ""), rows)
    capacity = (
        "below all of these" if load.capacity_per_s is None else f"{layout.figure(load.capacity_per_s)}/s"
    )
    yield layout.facts(
        [("capacity", f"{capacity}; latency from the planned arrival, decoding included; host clock")]
    )


def _sustained(run: SustainedRun) -> str:
    throttled = "" if not run.throttled else f"; throttled: {', '.join(run.throttled)}"
    return (
        f"batch {run.batch}, end to end for {run.duration_s:.0f} s: last fifth takes {run.slowdown:.3f} of the first "
        f"({run.interval.low:.3f} - {run.interval.high:.3f}){throttled}"
    )


def _costs(result: BenchResult) -> Iterator[tuple[str, str]]:
    for subject in result.subjects:
        memory = subject.memory
        sizes = [
            f"{name} {layout.size(value)}"
            for name, value in (("peak RSS", memory.peak_rss_bytes), ("GPU", memory.gpu_peak_bytes))
            if value is not None
        ]
        if memory.is_unified:
            sizes.append("one memory, counted twice")
        energies = [
            f"batch {item.batch}: {_energy(item.energy)}"
            for item in result.measurements
            if item.subject == subject.name and item.boundary == "end_to_end" and item.energy is not None
        ]
        yield subject.name, "; ".join([", ".join(sizes), *energies]).strip("; ")
    for name, reason in result.unavailable.items():
        yield name, f"not available: {reason}"


def _energy(energy: Energy) -> str:
    idle = "" if energy.idle_power_w is None else f", {layout.figure(energy.idle_power_w)} W idle"
    power = f"{layout.figure(energy.mean_power_w)} W{idle}"
    return f"{layout.figure(energy.energy_per_image_j)} J an image end to end ({energy.source}, {power})"


def _about(result: BenchResult) -> Iterator[tuple[str, str]]:
    from pargo_export.bench.records import BOUNDARIES

    environment, settings = result.environment, result.settings
    yield "processor", f"{environment.cpu.model}, {environment.cpu.num_usable_cores} usable core(s)"
    for gpu in environment.gpus:
        yield "GPU", gpu.name
    length = (
        f"{settings.iterations} runs"
        if settings.iterations is not None
        else f"{settings.duration_s:g} s of runs"
    )
    yield (
        "settings",
        f"{length} of each in {settings.num_rounds} rounds, {result.inputs.num_pictures} pictures",
    )
    for boundary in dict.fromkeys(item.boundary for item in result.measurements):
        yield boundary, BOUNDARIES[boundary]
    if any(not item.steadiness.is_steady for item in result.measurements):
        yield "~", "the times did not settle"
    yield from _warnings(result.warnings)


def _warnings(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    return (("warning", text) for text in texts)
