"""Real subjects in real processes: what is slower is found slower, and what is wrong is not timed."""

from __future__ import annotations

import dataclasses

import pytest

from pargo_export.bench.environment import describe_environment
from pargo_export.bench.inputs import load_pictures
from pargo_export.bench.measuring import measure
from pargo_export.bench.monitor import Monitor
from pargo_export.bench.options import BenchOptions
from pargo_export.bench.summaries import compare_subjects, describe_measurements
from pargo_export.errors import BackendError

QUICK = BenchOptions(iterations=6, num_rounds=6, num_warmup=1)


@pytest.fixture
def run(make_spec, tmp_path):
    """Return a function that measures subjects, and returns what was found and its measurements."""

    def run_and_describe(*specs, options=QUICK, batches=(1,), reference=None):
        with Monitor(describe_environment()) as monitor:
            found = measure(
                specs,
                reference or make_spec(),
                batches,
                load_pictures(),
                options,
                folder=tmp_path,
                monitor=monitor,
            )
            measurements, unavailable = describe_measurements(
                found.times.series, found.subjects, monitor, seed=0
            )
        return found, measurements, unavailable

    return run_and_describe


def test_a_slow_subject_is_found_slower_and_a_wrong_one_is_not_timed(make_spec, run):
    """20 ms more in each run show in the ratio; what is wrong, dies or is too small has a reason and no times."""
    specs = [
        make_spec(),
        make_spec("slow", "sleep"),
        make_spec("wrong", "wrong"),
        make_spec("dying", "die"),
        make_spec("late", "fail late"),
        make_spec("small", "small"),
    ]
    found, measurements, unavailable = run(*specs, batches=(1, 3))
    subjects = {subject.name: subject for subject in found.subjects}
    assert list(subjects) == [spec.facts.name for spec in specs]
    assert {item.subject for item in measurements} == {"fp32 on onnxruntime", "slow"}

    for name in ("fp32 on onnxruntime", "slow"):
        assert subjects[name].failure is None
        assert subjects[name].evidence.passed
        assert [stage.batch for stage in subjects[name].evidence.stages] == [1, 3]
        assert subjects[name].evidence.reference == "fp32 in onnxruntime"
        memory = subjects[name].memory
        assert 2e7 < memory.loaded_rss_bytes <= memory.peak_rss_bytes
    assert "misses the limits, so it was not timed" in subjects["wrong"].failure
    assert not subjects["wrong"].evidence.passed
    assert "SIGKILL" in subjects["dying"].failure
    assert "late: ValueError: out of order" in subjects["late"].failure
    assert subjects["small"].failure == "it takes at most 2 images, found batch 3"

    run_of = {(item.subject, item.batch): item for item in measurements if item.boundary == "run"}
    slow, fast = run_of["slow", 1], run_of["fp32 on onnxruntime", 1]
    assert slow.summary.min_ms >= 20
    assert slow.rounds == fast.rounds == tuple(range(6))
    ratios = {
        (item.batch, item.boundary): item
        for item in compare_subjects(measurements, found.subjects)
        if item.candidate == "slow"
    }
    assert ratios[1, "run"].ratio > 1
    assert ratios[1, "run"].baseline == "fp32 on onnxruntime"
    assert (3, "end_to_end") in ratios
    if run_of["slow", 3].energy is None:
        assert unavailable["energy"]


def test_nothing_is_timed_without_a_reference(make_spec, run):
    """If the reference cannot be computed, that is the error, and what to look at is in it."""
    with pytest.raises(BackendError, match=r"(?s)nothing was timed: .*cannot be loaded"):
        run(make_spec(), reference=make_spec("reference", "no loading"))


def test_load_and_long_run(make_spec, run):
    """The two other modes go on in the same processes; baselines are left out of them."""
    options = dataclasses.replace(QUICK, iterations=8, load=(40.0,), deadline_ms=2000.0, sustained_s=0.05)
    baseline = make_spec("baseline")
    baseline = dataclasses.replace(baseline, facts=baseline.facts.model_copy(update={"is_baseline": True}))
    found, measurements, _ = run(make_spec("candidate"), baseline, options=options)
    assert [load.subject for load in found.loads] == ["candidate"]
    (point,) = found.loads[0].points
    assert point.num_requests > 1
    assert point.summary is not None
    assert list(found.sustained) == ["candidate"]
    batch, log = found.sustained["candidate"]
    assert batch == 1
    assert len(log.samples_ms) >= 25
    comparisons = compare_subjects(measurements, found.subjects)
    assert {(item.baseline, item.candidate) for item in comparisons} == {("baseline", "candidate")}
