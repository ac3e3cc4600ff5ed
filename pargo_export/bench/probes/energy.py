"""From readings of a sensor to the energy of what was timed: integration over spans of time.

Readings come at a fixed period, runs begin and end when they like, and several subjects take turns. The readings are
made into a curve of power over time, and only what lies within the timed spans is integrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.bench.records import Energy

__all__ = ["MIN_SAMPLES", "PowerCurve", "Sample", "Span", "explain_missing", "integrate", "mean_power"]

Sample = tuple[int, float]  # time.perf_counter_ns, watts
Span = tuple[int, int]  # begin and end, time.perf_counter_ns

MIN_SAMPLES = 5
# Readings that are further apart than so many usual periods, and than a thread may wait for its turn on a busy machine,
# have a hole between them, which nothing is known of.
_HOLE_PERIODS = 5
_HOLE_NS = 250_000_000
# Less than this share of the timed runs covered, and the rest might have been anything.
_MIN_COVERAGE = 0.9


@dataclass(frozen=True)
class PowerCurve:
    """Power over time, straight between two readings.

    Attributes:
        times_ns: Times of the readings, int64 `[K]`, ascending.
        left_w: Power at the begin of each stretch between readings, watts, float64 `[K - 1]`.
        right_w: Power at its end.
    """

    times_ns: NDArray[np.int64]
    left_w: NDArray[np.float64]
    right_w: NDArray[np.float64]

    @classmethod
    def from_power(cls, samples: Sequence[Sample]) -> Self:
        """Join samples of power by straight lines: the trapezoidal rule."""
        watts = np.array([power for _, power in samples], np.float64)
        return cls(_times(samples), watts[:-1], watts[1:])

    @classmethod
    def from_counter(cls, readings: Sequence[Sample]) -> Self:
        """Derive the power from readings of an energy counter, joules; it is constant between two of them.

        A counter is renewed more rarely than it may be read: a reading that shows no change is no news, and left out.
        """
        kept = [item for index, item in enumerate(readings) if not index or item[1] != readings[index - 1][1]]
        times = _times(kept)
        joules = np.array([energy for _, energy in kept], np.float64)
        watts = np.diff(joules) / (np.diff(times) / 1e9)
        return cls(times, watts, watts)

    def samples(self) -> list[Sample]:
        """Return the curve as samples of power: the mean of each stretch, in its middle."""
        middles = (self.times_ns[:-1] + self.times_ns[1:]) // 2
        means = (self.left_w + self.right_w) / 2
        return [(int(time), float(power)) for time, power in zip(middles, means, strict=True)]

    def count(self, spans: Sequence[Span]) -> int:
        """Return how many readings lie within the spans."""
        return sum(
            int(np.searchsorted(self.times_ns, end, "right") - np.searchsorted(self.times_ns, begin, "left"))
            for begin, end in _merge(spans)
        )

    def integrate(self, spans: Sequence[Span]) -> tuple[float, float]:
        """Return the joules within the spans, and how many seconds of them the readings cover."""
        energy = seconds = 0.0
        if len(self.times_ns) < 2:
            return energy, seconds
        begins, ends = self.times_ns[:-1], self.times_ns[1:]
        lengths = np.maximum(ends - begins, 1)
        is_hole = lengths > max(_HOLE_PERIODS * float(np.median(lengths)), _HOLE_NS)
        slopes = (self.right_w - self.left_w) / lengths
        for begin, end in _merge(spans):
            low, high = np.maximum(begins, begin), np.minimum(ends, end)
            inside = (high > low) & ~is_hole
            low, high, first = low[inside], high[inside], begins[inside]
            middle = self.left_w[inside] + slopes[inside] * ((low - first) + (high - first)) / 2
            energy += float(np.sum(middle * (high - low))) / 1e9
            seconds += float(np.sum(high - low)) / 1e9
        return energy, seconds

    def measure(
        self, spans: Sequence[Span], num_images: int, *, source: str, idle_power_w: float | None = None
    ) -> Energy | None:
        """Return the energy of `num_images` images that were computed within the spans; `None` as `explain` says."""
        if num_images < 1:
            raise ValueError(f"the energy of {num_images} images was asked for, expected at least 1")
        if self.explain(spans):
            return None
        energy, covered = self.integrate(spans)
        power = energy / covered
        return Energy(
            source=source,
            mean_power_w=power,
            idle_power_w=idle_power_w,
            energy_per_image_j=power * _length_s(spans) / num_images,
            num_samples=self.count(spans),
        )

    def explain(self, spans: Sequence[Span]) -> str:
        """Return why the readings do not tell the power within the spans; empty if they do."""
        count, length = self.count(spans), _length_s(spans)
        if count < MIN_SAMPLES:
            return (
                f"{count} power readings fell into {length:.3g} s of timed runs, at least {MIN_SAMPLES} are needed: "
                "measure for longer"
            )
        _, covered = self.integrate(spans)
        if covered < _MIN_COVERAGE * length:
            return f"power was read during {covered / length:.0%} of the timed runs only"
        return ""


def integrate(
    samples: Sequence[Sample],
    spans: Sequence[Span],
    num_images: int,
    *,
    source: str = "",
    idle_power_w: float | None = None,
) -> Energy | None:
    """Return the energy of an image from samples of power and the spans of the timed blocks.

    Args:
        samples: Time and watts, ascending.
        spans: Begin and end of each timed block, of the same clock; what overlaps counts once.
        num_images: Images that were computed within the spans.
        source: What was read.
        idle_power_w: Power before anything was loaded.

    Returns:
        `None` with fewer than five samples within the spans, or with holes; `explain_missing` says which.

    Raises:
        ValueError: There are no images.
    """
    curve = PowerCurve.from_power(samples)
    return curve.measure(spans, num_images, source=source, idle_power_w=idle_power_w)


def explain_missing(samples: Sequence[Sample], spans: Sequence[Span]) -> str:
    """Return why `integrate` returns `None`; empty if it does not."""
    return PowerCurve.from_power(samples).explain(spans)


def mean_power(samples: Sequence[Sample], spans: Sequence[Span]) -> float | None:
    """Return the mean power within the spans, watts; `None` if the samples cover nothing of them."""
    energy, covered = PowerCurve.from_power(samples).integrate(spans)
    return energy / covered if covered else None


def _times(readings: Sequence[Sample]) -> NDArray[np.int64]:
    return np.array([time for time, _ in readings], np.int64)


def _merge(spans: Sequence[Span]) -> list[Span]:
    """Return the spans in order, those that overlap as one."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _length_s(spans: Sequence[Span]) -> float:
    return sum(end - begin for begin, end in _merge(spans)) / 1e9
