"""Energy from readings: against closed forms, and what must not be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pargo_export.bench.probes.energy import PowerCurve, explain_missing, integrate, mean_power

S = 1_000_000_000


def sampled(power, seconds, period):
    """Samples of a function of time in seconds."""
    return [(round(time * S), power(time)) for time in np.arange(0, seconds + period / 2, period)]


@settings(max_examples=60, deadline=None)
@given(
    begin=st.floats(0.2, 4),
    length=st.floats(1, 5),
    offset=st.floats(5, 50),
    swing=st.floats(0, 5),
    rate=st.floats(0, 6),
)
def test_the_integral_of_a_wave_is_its_closed_form(begin, length, offset, swing, rate):
    """Trapezoids of 10 ms follow any wave of up to one period a second, wherever the span begins and ends."""
    end = begin + length
    samples = sampled(lambda time: offset + swing * np.cos(rate * time), 10, 0.01)
    # the mean of a cosine over a span, also if it does not move
    exact = offset + swing * np.cos(rate * (begin + end) / 2) * np.sinc(rate * length / 2 / np.pi)
    found = mean_power(samples, [(round(begin * S), round(end * S))])
    # the bound of the trapezoidal rule: period^2 / 12 * the second derivative, twice for the cut stretches at both ends
    assert found == pytest.approx(exact, rel=0, abs=2 * 1e-4 / 12 * swing * rate**2 + 1e-6)


def test_a_ramp_is_exact_within_spans():
    """Straight power is integrated exactly, also where a span begins between two samples; overlaps count once."""
    samples = sampled(lambda time: 10 * time, 4, 0.1)
    spans = [(S, 2 * S), (int(1.55 * S), int(2.25 * S)), (3 * S, int(3.5 * S))]
    energy = integrate(samples, spans, 50, source="test", idle_power_w=3.0)
    expected = 5 * (2.25**2 - 1) + 5 * (3.5**2 - 3**2)
    assert energy.mean_power_w == pytest.approx(expected / 1.75)
    assert energy.energy_per_image_j == pytest.approx(expected / 50)
    assert (energy.source, energy.idle_power_w) == ("test", 3.0)
    assert energy.num_samples == 13 + 6


def test_only_what_was_timed_counts():
    """Two subjects take turns; the power of each is its own."""
    samples = sampled(lambda time: 30.0 if int(time) % 2 else 10.0, 6, 0.01)
    spans = [(begin * S + S // 10, (begin + 1) * S - S // 10) for begin in (0, 2, 4)]
    assert integrate(samples, spans, 3).mean_power_w == pytest.approx(10)
    spans = [(begin + S, end + S) for begin, end in spans]
    assert integrate(samples, spans, 3).mean_power_w == pytest.approx(30)


def test_a_counter_is_a_difference():
    """Of an energy counter the difference is taken, whatever it began with; readings without news are left out."""
    readings = [
        (index * S // 20, 1000 + 5.0 * (index // 4)) for index in range(200)
    ]  # renewed every 200 ms: 25 W
    curve = PowerCurve.from_counter(readings)
    assert len(curve.times_ns) == 50
    energy = curve.measure([(S, 7 * S)], 10, source="counter")
    assert energy.mean_power_w == pytest.approx(25)
    assert energy.energy_per_image_j == pytest.approx(15)
    assert all(power == pytest.approx(25) for _, power in curve.samples())


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "0 power readings fell into 1 s"),
        (sampled(lambda _: 10, 3, 0.25)[:4], "0 power readings fell into 1 s"),
        (sampled(lambda _: 10, 3, 0.26), "4 power readings fell into 1 s of timed runs, at least 5"),
        (sampled(lambda _: 10, 1.5, 0.05), "power was read during 50% of the timed runs only"),
    ],
)
def test_too_little_is_not_told(samples, reason):
    """With too few samples within the runs, or none behind them, there is no energy but a reason."""
    spans = [(S, 2 * S)]
    assert integrate(samples, spans, 10) is None
    assert reason in explain_missing(samples, spans)


def test_a_hole_is_not_bridged():
    """What happened while the sensor failed is not known; a small hole is left out of the mean, a large one refused."""
    samples = [item for item in sampled(lambda time: 10 + time, 10, 0.1) if not 2 * S < item[0] < 3 * S]
    assert integrate(samples, [(0, 5 * S)], 1) is None
    assert explain_missing(samples, [(0, 5 * S)]) == "power was read during 80% of the timed runs only"
    whole = integrate(samples, [(0, 10 * S)], 1)
    covered = (10 * 2 + 2**2 / 2) + (10 * 7 + (10**2 - 3**2) / 2)
    assert whole.mean_power_w == pytest.approx(covered / 9)
    assert whole.energy_per_image_j == pytest.approx(covered / 9 * 10)


def test_no_images_is_an_error():
    """Energy by no images is a mistake of the caller."""
    with pytest.raises(ValueError, match="energy of 0 images"):
        integrate(sampled(lambda _: 10, 3, 0.05), [(0, S)], 0)
    assert mean_power([], [(0, S)]) is None
