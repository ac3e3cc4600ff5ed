"""The first screen: what was measured, where, how fast, and whether it may be believed."""

from __future__ import annotations

from pargo_export.bench.records import Comparison, Measurement, Subject
from pargo_export.bench.steadiness import MIN_SAMPLES
from pargo_export.bundle import sha256_file
from pargo_export.bundle.paths import MANIFEST_NAME
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.parts import Block, Card, Cards, Facts, Note, Section, Table

__all__ = ["find_best", "headline", "warnings"]

_MOST_WARNINGS = 8  # further ones are folded


def headline(context: Context) -> Section:
    """Say what was measured, who is fastest, by how much, and the state of the gate."""
    best = find_best(context)
    cards = [_fastest(best), *_ratio(context, best), *_throughput(context), _gate(context)]
    return Section("headline", "In short", (Cards(tuple(cards)), _about(context), _subjects(context)))


def warnings(context: Context) -> Section | None:
    """Repeat what makes the numbers doubtful; `None` if nothing does."""
    found = [*context.result.warnings, *_changed(context)]
    found += [
        f"{item.subject}, {text.where(item)}: the times did not settle ({item.steadiness.reason})"
        for item in context.result.measurements
        if not item.steadiness.is_steady
        and item.summary.num_samples >= MIN_SAMPLES  # of the others the result says so, in one line
        and item.boundary == context.total
        and not any("settle" in warning and item.subject in warning for warning in context.result.warnings)
    ]
    if not found:
        return None
    shown, folded = (lines := list(dict.fromkeys(found)))[:_MOST_WARNINGS], lines[_MOST_WARNINGS:]
    blocks: list[Block] = [Note(warning, "warning") for warning in shown]
    if folded:
        rows = tuple((warning,) for warning in folded)
        blocks.append(Table(text.plural(len(folded), "more warning"), ("warning",), rows))
    return Section(
        "warnings", "Warnings", tuple(blocks), "What makes these numbers doubtful.", tone="warning"
    )


def find_best(context: Context) -> Measurement | None:
    """Return the fastest candidate: smallest batch, one caller, the widest boundary; baselines only if alone."""
    kinds = {subject.name: subject.is_baseline for subject in context.result.subjects}
    found = [item for item in context.result.measurements if item.boundary == context.total]
    candidates = [item for item in found if not kinds.get(item.subject, False)] or found
    return min(
        candidates, key=lambda item: (item.batch, item.concurrency, item.summary.median_ms), default=None
    )


def _fastest(best: Measurement | None) -> Card:
    if best is None:
        return Card("Fastest", "no times", "nothing was measured; the table below says why", "unknown")
    found = best.summary.median_interval
    spread = f", {text.level(found)} {text.interval(found)}" if found else ""
    return Card(
        f"Fastest: {best.subject}",
        text.milliseconds(best.summary.median_ms),
        f"median of {best.summary.num_samples} runs{spread}; {text.where(best)}",
    )


def _ratio(context: Context, best: Measurement | None) -> list[Card]:
    """Compare the best with the baseline that is hardest to beat."""
    if best is None:
        return []
    found = [
        item
        for item in context.result.comparisons
        if (item.candidate, item.batch, item.concurrency, item.boundary)
        == (best.subject, best.batch, best.concurrency, best.boundary)
    ]
    hardest: Comparison | None = max(found, key=lambda item: item.ratio, default=None)
    if hardest is None:
        return []
    low, high = (
        text.times_as_fast(hardest.interval.high),
        text.times_as_fast(hardest.interval.low),
    )
    tone = {"faster": "good", "slower": "bad"}.get(hardest.verdict, "unknown")
    return [
        Card(
            f"Beside {hardest.baseline}",
            f"{text.times_as_fast(hardest.ratio)} as fast",
            f"{text.level(hardest.interval)} {low} to {high}, {hardest.num_rounds} rounds in turns: {hardest.verdict}",
            tone,
        )
    ]


def _throughput(context: Context) -> list[Card]:
    kinds = {subject.name: subject.is_baseline for subject in context.result.subjects}
    found = [
        item
        for item in context.result.measurements
        if item.boundary == context.total and not kinds.get(item.subject, False)
    ]
    most = max(found, key=lambda item: item.images_per_s, default=None)
    if most is None:
        return []
    return [
        Card(
            "Most images in a second",
            f"{text.number(most.images_per_s)} images/s",
            f"{most.subject}; {text.where(most)}",
        )
    ]


def _gate(context: Context) -> Card:
    """Sum up the gate: red if an output missed its limits, unknown if one could not be compared or loaded."""
    subjects = context.result.subjects
    red = [item.name for item in subjects if item.evidence is not None and not item.evidence.passed]
    failed = [item.name for item in subjects if item.failure is not None and item.name not in red]
    open_ones = [item.name for item in subjects if item.evidence is None and item.failure is None]
    title = "Correctness gate"
    if red:
        return Card(
            title, "✗ missed", f"outputs too far from float32: {text.join(red)}; no times of these", "bad"
        )
    if failed:
        return Card(title, "✗ incomplete", f"{text.join(failed)} failed: the table below says why", "bad")
    if open_ones or not subjects:
        return Card(
            title, "? not compared", f"{text.join(open_ones)}: no reference to compare with", "unknown"
        )
    return Card(
        title,
        "✓ passed",
        f"the outputs of all {len(subjects)} subjects are within their limits, on this machine",
        "good",
    )


def _about(context: Context) -> Facts:
    result = context.result
    height, width = result.bundle.image_size
    return Facts(
        (
            (
                "Model",
                (
                    f"{result.bundle.model}; {result.bundle.num_parameters:,} parameters, {height} x {width} pixels to "
                    f"{result.bundle.num_visual_tokens} visual tokens"
                ),
            ),
            ("Bundle", f"{result.bundle.path}, manifest {result.bundle.manifest_sha256[:16]}"),
            ("Machine", f"{context.place}; {result.environment.platform}"),
            (
                "Pictures",
                f"{result.inputs.num_pictures}, median {text.number(result.inputs.median_megapixels)} megapixels",
            ),
            ("Measured", result.created),
        )
    )


def _subjects(context: Context) -> Table:
    rows = tuple(
        (
            subject.name + (" (baseline)" if subject.is_baseline else ""),
            _outcome(subject),
            _distance(subject),
            subject.precision,
            subject.backend,
            subject.device or "-",
            "-" if subject.load_s is None else f"{text.number(subject.load_s)} s",
        )
        for subject in context.result.subjects
    )
    return Table(
        "Subjects and the correctness gate",
        ("subject", "gate", "worst token", "precision", "ran on", "device", "ready after"),
        rows,
        num_text=6,
        is_open=True,
    )


def _outcome(subject: Subject) -> str:
    if subject.evidence is None:
        return "? not compared" if subject.failure is None else f"✗ {subject.failure}"
    if not subject.evidence.passed:
        return f"✗ missed: {subject.failure}" if subject.failure else "✗ missed"
    return "✓ passed" if subject.failure is None else f"✓ passed, but ✗ {subject.failure}"


def _distance(subject: Subject) -> str:
    if subject.evidence is None or not subject.evidence.stages:
        return "-"
    worst = min(item.cosine for item in subject.evidence.stages)
    ratios = [item.sqnr_db for item in subject.evidence.stages if item.sqnr_db is not None]
    return f"cosine {worst:.6f}" + (f", {min(ratios):.1f} dB" if ratios else "")


def _changed(context: Context) -> list[str]:
    """Say so if the bundle at hand is not the one that was measured."""
    if context.bundle is None:
        return []
    found = sha256_file(context.bundle.path / MANIFEST_NAME)
    if found == context.result.bundle.manifest_sha256:
        return []
    return [
        (
            f"the bundle {context.bundle.path} is not as it was measured (manifest {found[:16]}, measured "
            f"{context.result.bundle.manifest_sha256[:16]}): error heat map, masks and precision map show it as it is now"
        )
    ]
