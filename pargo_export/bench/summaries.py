"""From times to what is told of them: measurements and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pargo_export.bench import steadiness
from pargo_export.bench.comparison import compare_rounds
from pargo_export.bench.monitor import Monitor, target_of
from pargo_export.bench.records import Comparison, Measurement, Subject
from pargo_export.bench.rounds import Place, Series
from pargo_export.bench.statistics import MIN_SAMPLES, summarize

__all__ = ["compare_subjects", "describe_measurements", "find_doubts"]


def describe_measurements(
    series: Mapping[Place, Series], subjects: Sequence[Subject], monitor: Monitor, *, seed: int
) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    """Summarize the times of every place.

    Returns:
        The measurements, and what of them is not available: `{"energy": "no power sensor: ..."}`.
    """
    by_name = {subject.name: subject for subject in subjects}
    measurements, reasons = [], []
    for place, found in series.items():
        num_images = place.batch * len(found.samples_ms)
        energy, reason = None, ""
        if place.clock == "host":  # the stages are parts of one run
            target = target_of(by_name[place.subject])
            energy, reason = monitor.measure_energy(target, found.spans_ns, num_images)
        if reason and reason not in reasons:
            reasons.append(reason)
        measurements.append(
            Measurement(
                subject=place.subject,
                batch=place.batch,
                concurrency=place.concurrency,
                boundary=place.boundary,
                clock=place.clock,
                samples_ms=tuple(found.samples_ms),
                rounds=tuple(found.rounds),
                summary=summarize(found.samples_ms, seed=seed, rounds=found.rounds),
                images_per_s=num_images / found.wall_s,
                steadiness=steadiness.assess(found.samples_ms),
                energy=energy,
            )
        )
    return tuple(measurements), {"energy": "; ".join(reasons)} if reasons else {}


def compare_subjects(
    measurements: Sequence[Measurement], subjects: Sequence[Subject]
) -> tuple[Comparison, ...]:
    """Compare every subject with every baseline, or without any with the first subject."""
    measured = {item.subject for item in measurements}
    names = [subject.name for subject in subjects if subject.name in measured]
    baselines = [subject.name for subject in subjects if subject.is_baseline and subject.name in measured]
    if not any(subject.is_baseline for subject in subjects):
        baselines = names[:1]
    found = []
    for baseline in baselines:
        before = {_key(item): item for item in measurements if item.subject == baseline}
        for item in measurements:
            if item.subject in baselines or _key(item) not in before:
                continue
            comparison = compare_rounds(before[_key(item)], item)
            if comparison is not None:
                found.append(comparison)
    return tuple(found)


def find_doubts(measurements: Sequence[Measurement], num_rounds: int) -> Iterator[str]:
    """Yield what of the times themselves makes them doubtful."""
    if num_rounds < MIN_SAMPLES:
        yield (
            f"{num_rounds} rounds are too few to tell how much the machine changes from round to round: intervals are "
            f"too narrow or very wide; make at least {MIN_SAMPLES}"
        )
    judged = [item for item in measurements if item.summary.num_samples >= steadiness.MIN_SAMPLES]
    if len(judged) < len(measurements):
        yield (
            f"{len(measurements) - len(judged)} of {len(measurements)} series have fewer than {steadiness.MIN_SAMPLES} "
            "runs: too few to tell whether their times settled; measure for longer"
        )
    for name in dict.fromkeys(item.subject for item in judged):
        own = [item for item in judged if item.subject == name]
        restless = [
            f"batch {item.batch} {item.boundary}"
            + (f" with {item.concurrency} callers" if item.concurrency > 1 else "")
            for item in own
            if not item.steadiness.is_steady
        ]
        if restless:
            yield (
                f"{name}: {len(restless)} of {len(own)} series of times did not settle ({', '.join(restless)}); measure for "
                "longer, on a quieter machine"
            )


def _key(item: Measurement) -> tuple[int, int, str, str]:
    return item.batch, item.concurrency, item.boundary, item.clock
