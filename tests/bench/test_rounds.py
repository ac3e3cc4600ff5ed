"""The order of the rounds: A B A B, warm-up first, and what becomes of a subject that fails."""

from __future__ import annotations

from collections import Counter

import pytest

from pargo_export.bench.options import BenchOptions
from pargo_export.bench.rounds import Place, run_rounds
from pargo_export.errors import BackendError


class Asked:
    """Answers as a process does, and notes in a common log what it was asked."""

    def __init__(self, name, log, *, has_stages=False, fails_at=None):
        self.name, self.log, self.has_stages, self.fails_at = name, log, has_stages, fails_at
        self.count = 0

    def ask(self, do, **values):
        """Answer with as many samples as there were runs asked for."""
        self.log.append((do, self.name, values))
        self.count += 1
        if self.count == self.fails_at:
            raise BackendError(f"{self.name}: broken")
        if do == "warm_up":
            return {}
        boundary = values["boundary"]
        names = ("host_to_device", "compute", "device_to_host") if boundary == "stages" else (boundary,)
        begin = len(self.log) * 10**9
        samples = [1.0] * values.get("iterations", 2)
        return {"samples_ms": dict.fromkeys(names, samples), "start_ns": begin, "end_ns": begin + 10**6}


def test_subjects_take_turns():
    """All are warmed up; in each round each has its block at every place, and another one begins each time."""
    log: list = []
    subjects = {name: Asked(name, log) for name in "ab"}
    options = BenchOptions(iterations=6, num_rounds=3, num_warmup=2)
    found = run_rounds(subjects, (1, 4), options, pause=lambda: log.append(("pause", "", {})))
    assert [entry[0] for entry in log[:12]] == ["warm_up"] * 12  # 2 batches, 3 boundaries, 2 subjects
    assert all(values["runs"] == 2 for _, _, values in log[:12])
    assert [index for index, entry in enumerate(log) if entry[0] == "pause"] == [12, 25, 38, 51]
    timed = [(name, values["batch"], values["boundary"]) for do, name, values in log if do == "time"]
    pairs = list(zip(timed[::2], timed[1::2], strict=True))
    assert all(one[1:] == other[1:] and {one[0], other[0]} == {"a", "b"} for one, other in pairs)
    for place in {one[1:] for one, _ in pairs}:
        firsts = [one[0] for one, _ in pairs if one[1:] == place]
        assert firsts in (["a", "b", "a"], ["b", "a", "b"])
    series = found.series[Place("b", 4, 1, "run", "host")]
    assert (series.rounds, len(series.samples_ms)) == ([0, 0, 1, 1, 2, 2], 6)
    assert series.wall_s == pytest.approx(3e-3)
    assert not found.failures


def test_iterations_are_shared_out():
    """Seven runs in three rounds are seven runs; two runs are two rounds, not three."""
    log: list = []
    found = run_rounds({"a": Asked("a", log)}, (1,), BenchOptions(iterations=7, num_rounds=3))
    assert Counter(found.series[Place("a", 1, 1, "run", "host")].rounds) == {0: 2, 1: 2, 2: 3}
    found = run_rounds({"a": Asked("a", log)}, (1,), BenchOptions(iterations=2, num_rounds=3))
    assert found.series[Place("a", 1, 1, "run", "host")].rounds == [0, 1]


def test_seconds_are_shared_out():
    """Ten rounds of two seconds make blocks of 0.2 seconds."""
    log: list = []
    run_rounds({"a": Asked("a", log)}, (1,), BenchOptions(duration_s=2))
    assert {values["duration_s"] for do, _, values in log if do == "time"} == {0.2}


def test_boundaries():
    """Stages only of subjects that tell them, by the clock of the device; several callers at two boundaries only."""
    log: list = []
    subjects = {"cpu": Asked("cpu", log), "gpu": Asked("gpu", log, has_stages=True)}
    options = BenchOptions(iterations=1, num_warmup=0, concurrencies=(1, 3))
    found = run_rounds(subjects, (1,), options).series
    boundaries = {(place.subject, place.concurrency, place.boundary, place.clock) for place in found}
    alone = {
        (name, 1, boundary, "host") for name in subjects for boundary in ("preprocess", "run", "end_to_end")
    }
    together = {(name, 3, boundary, "host") for name in subjects for boundary in ("run", "end_to_end")}
    stages = {("gpu", 1, name, "cuda-events") for name in ("host_to_device", "compute", "device_to_host")}
    assert boundaries == alone | together | stages
    assert not any(do == "warm_up" for do, _, _ in log)


@pytest.mark.parametrize("fails_at", [2, 5])
def test_a_subject_that_fails_is_out(fails_at):
    """It is not asked again and has no times; the other one goes on."""
    log: list = []
    subjects = {"a": Asked("a", log), "b": Asked("b", log, fails_at=fails_at)}
    found = run_rounds(subjects, (1,), BenchOptions(iterations=4, num_rounds=2))
    assert found.failures == {"b": "b: broken"}
    assert {place.subject for place in found.series} == {"a"}
    assert subjects["b"].count == fails_at
    assert len(found.series[Place("a", 1, 1, "end_to_end", "host")].samples_ms) == 4
