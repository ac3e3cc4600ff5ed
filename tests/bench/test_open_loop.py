"""The load generator: in simulated time, and on a runtime."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from bench_cases import SimulatedServer

from pargo_export import BackendError, ConfigError, Runtime
from pargo_export.assets import PHOTOGRAPH
from pargo_export.bench.open_loop import WallClock, run_load
from pargo_export.runtime.events import RunEvent


def load(server, **options):
    """Put a load on a simulated server."""
    settings = {"rate": 10.0, "arrivals": "fixed", "duration_s": 1.0, "clock": server} | options
    return run_load(server, settings.pop("pictures", [b"a"]), **settings)


def test_the_mean_wait_is_that_of_queueing_theory():
    """Poisson arrivals at a server of constant service time wait as Pollaczek and Khinchine say (M/D/1)."""
    utilisation, service_ms = 0.7, 10.0
    point = load(
        SimulatedServer(service_ms),
        rate=utilisation / service_ms * 1e3,
        arrivals="poisson",
        duration_s=120,
        seed=5,
    )
    expected_ms = service_ms * (1 + utilisation / (2 * (1 - utilisation)))
    batches = np.array([np.mean(part) for part in np.array_split(point.samples_ms, 30)])  # about independent
    error_ms = batches.std(ddof=1) / np.sqrt(len(batches))
    assert error_ms < 0.05 * expected_ms
    assert abs(np.mean(point.samples_ms) - expected_ms) < 3 * error_ms
    assert point.offered_per_s == pytest.approx(70, rel=0.05)
    assert point.achieved_per_s == pytest.approx(point.offered_per_s, rel=0.005)
    assert (point.is_saturated, point.num_refused, point.num_missed, point.mean_batch) == (
        False,
        0,
        None,
        None,
    )


def test_a_camera_within_the_capacity_never_waits():
    """At fixed arrivals below the capacity every latency is the service time."""
    point = load(SimulatedServer(90.0))
    assert point.samples_ms == pytest.approx([90.0] * 10)
    assert point.duration_s == pytest.approx(0.99)
    assert point.offered_per_s == 10
    assert point.late_ms == 0
    assert point.summary is not None
    assert point.summary.median_ms == pytest.approx(90)


def test_a_latency_counts_from_the_planned_arrival():
    """What the generator wakes up late is part of the latency, and is told."""
    point = load(SimulatedServer(20.0, wakes_late_ms=3.0))
    assert point.samples_ms == pytest.approx([23.0] * 10)
    assert point.late_ms == pytest.approx(3)


def test_requests_of_a_stall_are_not_omitted():
    """While everything stands still for a second, ten requests fall due; each waited for what was left of it."""

    class Stalling(SimulatedServer):
        def submit(self, images, **options):
            if self.num_computed == 10:
                self._advance(self.time_ns + 1_000_000_000)
            return super().submit(images, **options)

    point = load(Stalling(1.0), duration_s=4.0)
    assert point.num_requests == 40
    late = sorted(sample for sample in point.samples_ms if sample > 50)
    # The one that stalled, and those behind it, which are worked off at a millisecond each.
    assert late == pytest.approx(
        [1000 - 100 * index + 1 * (index + 1) for index in range(10)][::-1], abs=0.01
    )
    assert np.median(point.samples_ms) == pytest.approx(1)


def test_overload_is_told():
    """Beyond the capacity the queue grows, or requests are refused; what is achieved is the capacity."""
    endless = load(SimulatedServer(200.0), duration_s=20.0)
    assert endless.is_saturated
    assert (endless.num_refused, len(endless.samples_ms)) == (0, 200)
    assert endless.achieved_per_s == pytest.approx(5, rel=0.01)
    assert endless.duration_s == pytest.approx(40)

    bounded = load(SimulatedServer(200.0, max_pending=4), duration_s=20.0)
    assert bounded.is_saturated
    assert bounded.num_refused == pytest.approx(100, abs=5)
    assert bounded.num_refused + len(bounded.samples_ms) == bounded.num_requests == 200
    assert max(bounded.samples_ms) <= 5 * 200 + 1e-6
    assert bounded.achieved_per_s == pytest.approx(5, rel=0.03)


def test_missed_deadlines_are_counted_and_what_expired_is_not_computed():
    """Late answers, what expired in the queue and what was refused all miss the deadline."""
    server = SimulatedServer(260.0)
    point = load(server, deadline_ms=300.0)
    # Of those planned every 100 ms, the ones at 0, 100, 300, 500 and 800 ms begin within 300 ms.
    assert point.samples_ms == pytest.approx([260, 420, 480, 540, 500])
    assert server.num_computed == 5
    assert point.num_refused == 5
    assert point.num_missed == 9
    assert load(SimulatedServer(260.0), duration_s=0.1, deadline_ms=300.0).num_missed == 0


def test_what_is_due_after_its_deadline_is_not_sent():
    """If the generator itself is later than the deadline, the request is missed, and not handed over."""
    server = SimulatedServer(1.0, wakes_late_ms=50.0)
    point = load(server, deadline_ms=40.0)
    assert (point.num_missed, point.num_refused, server.num_computed) == (10, 10, 0)
    assert (point.samples_ms, point.summary, point.is_saturated) == ((), None, True)


def test_another_failure_is_raised_after_the_last_answer():
    """An error of the backend ends the load; nothing is left pending."""
    server = SimulatedServer(250.0)
    with pytest.raises(BackendError, match="gone"):
        load(server, pictures=[b"a", BackendError("gone")])
    assert not server._events
    assert server.num_computed < 10


def test_results_are_not_kept():
    """Visual tokens of a finished request are freed at once: an hour of them would not fit into memory."""

    class Tokens:
        pass

    alive: weakref.WeakSet[Tokens] = weakref.WeakSet()
    most = 0

    class Counting(SimulatedServer):
        def compute(self):
            nonlocal most
            tokens = Tokens()
            alive.add(tokens)
            most = max(most, len(alive))
            return tokens

    load(Counting(10.0), duration_s=3.0)
    assert 0 < most <= 2


def test_the_mean_batch_is_taken_from_the_events():
    """Runs that were told count, other events do not, and the listener is removed."""
    listeners = []

    class Telling(SimulatedServer):
        def subscribe(self, listener):
            listeners.append(listener)
            return lambda: listeners.remove(listener)

        def submit(self, images, **options):
            for kind, count in (("run", 4), ("failed", 9), ("run", 1)):
                listeners[0](RunEvent(kind, count, 0, 0, 0))
            return super().submit(images, **options)

    assert load(Telling(1.0)).mean_batch == 2.5
    assert not listeners


def test_a_load_without_pictures_or_time_is_refused():
    """The message names what was found."""
    with pytest.raises(ConfigError, match="pictures: found none"):
        load(SimulatedServer(1.0), pictures=[])
    with pytest.raises(ConfigError, match="deadline_ms: found 0"):
        load(SimulatedServer(1.0), deadline_ms=0)


def test_real_time_passes_until_the_moment():
    """The wall clock returns at the moment or later, and at once if it has passed."""
    clock = WallClock()
    moment = clock.now_ns() + 5_000_000
    clock.sleep_until_ns(moment)
    assert clock.now_ns() >= moment
    clock.sleep_until_ns(moment)


def test_a_runtime_takes_a_load(exported_bundle):
    """Every request of a load on a real runtime has an answer, or was refused; nothing stays behind."""
    pictures = [PHOTOGRAPH.read_bytes()]
    with Runtime.open(exported_bundle, variant="fp32", backend="onnxruntime", threads=1) as runtime:
        point = run_load(runtime, pictures, rate=40, arrivals="poisson", duration_s=0.5, seed=1)
        assert runtime.num_pending == 0
    assert point.num_requests == len(point.samples_ms) + point.num_refused
    assert len(point.samples_ms) > 0
    assert min(point.samples_ms) > 0
    assert point.mean_batch == 1
