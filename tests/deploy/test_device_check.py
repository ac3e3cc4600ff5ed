"""Engines are run and timed through the runtime; here another backend computes in their place."""

from __future__ import annotations

import pytest
from deploy.engine_records import engine_of

from pargo_export.bundle import Bundle
from pargo_export.deploy import device_check
from pargo_export.deploy.device_check import (
    check_agreement,
    describe_failure,
    find_run_obstacle,
    time_engines,
    time_in_turns,
)
from pargo_export.errors import BackendError, EngineError
from pargo_export.runtime.backends import OnnxRuntimeRunner


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Let ONNX Runtime compute what the engine would."""
    monkeypatch.setattr(device_check, "BACKENDS", {"rtx": "onnxruntime"})


def test_without_a_gpu_there_is_an_obstacle(exported_bundle):
    """The reason of the backend, with its mend."""
    obstacle = find_run_obstacle(Bundle.open(exported_bundle), engine_of("fp32"))
    assert obstacle is not None
    assert obstacle.startswith("tensorrt-rtx: ")


@pytest.mark.usefixtures("on_the_cpu")
def test_evidence_is_measured(exported_bundle):
    """Against the float32 variant, at batch one and the largest, with the limits of the variant."""
    bundle = Bundle.open(exported_bundle)
    assert find_run_obstacle(bundle, engine_of("fp32")) is None
    evidence = check_agreement(bundle, engine_of("fp32"))
    assert evidence.passed
    assert [item.batch for item in evidence.stages] == [1, 4]
    assert evidence.limits == bundle.variant("fp32").evidence.limits


@pytest.mark.usefixtures("on_the_cpu")
def test_a_wrong_engine_fails(exported_bundle, monkeypatch):
    """One percent off, and the message has the limits and the distance."""
    execute = OnnxRuntimeRunner._execute
    calls = []

    def wrong(self, feed):
        calls.append(feed)  # the engine runs before the reference
        factor = 1.01 if len(calls) <= 3 else 1.0
        return {name: value * factor for name, value in execute(self, feed).items()}

    monkeypatch.setattr(OnnxRuntimeRunner, "_execute", wrong)
    evidence = check_agreement(Bundle.open(exported_bundle), engine_of("fp32"))
    assert not evidence.passed
    text = describe_failure(engine_of("fp32"), evidence)
    assert text.startswith(
        "engine fp32-rtx misses its limits on this device (max_abs 0.0001, cosine 0.99999)"
    )
    assert "against fp32 in onnxruntime" in text


@pytest.mark.usefixtures("on_the_cpu")
def test_an_engine_that_overflows_is_an_error(exported_bundle, monkeypatch):
    """Not a number is no agreement."""
    execute = OnnxRuntimeRunner._execute
    monkeypatch.setattr(
        OnnxRuntimeRunner,
        "_execute",
        lambda self, feed: {name: value * float("nan") for name, value in execute(self, feed).items()},
    )
    with pytest.raises(EngineError, match="computes nonsense: "):
        check_agreement(Bundle.open(exported_bundle), engine_of("fp32"))


def test_no_other_engine_is_taken_for_it(exported_bundle, monkeypatch):
    """The runtime sees this one alone, and not what an earlier run found out about it."""
    bundle = Bundle.open(exported_bundle)
    both = {name: engine_of("fp32", name=name) for name in ("other", "mine")}
    bundle.manifest = bundle.manifest.model_copy(update={"engines": both})
    seen = []

    def open_runtime(source, **options):
        seen.append((dict(source.manifest.engines), options))
        raise BackendError("stopped here")

    monkeypatch.setattr("pargo_export.agreement.Runtime.open", open_runtime)
    judged = both["mine"].model_copy(update={"evidence": bundle.variant("fp32").evidence})
    with pytest.raises(BackendError, match="stopped here"):
        check_agreement(bundle, judged)
    ((engines, options),) = seen
    assert engines == {"mine": both["mine"]}
    assert options == {"backend": "tensorrt-rtx", "variant": "fp32", "engine": None}


@pytest.mark.usefixtures("on_the_cpu")
def test_engines_are_timed(exported_bundle):
    """Real runs of the graphs, at the batch that the kernels were chosen for."""
    bundle = Bundle.open(exported_bundle)
    timings = time_engines(bundle, (engine_of("fp32", 2), engine_of("fp32", 2)), num_runs=3)
    assert [(item.batch, item.num_runs) for item in timings] == [(2, 3), (2, 3)]
    assert all(0 < item.median_ms < 10_000 for item in timings)


def test_different_batches_are_not_compared(exported_bundle):
    """The numbers would say nothing."""
    with pytest.raises(EngineError, match="kernels for different batch sizes"):
        time_engines(Bundle.open(exported_bundle), (engine_of("fp32", 1), engine_of("fp32", 2)))


def test_turns_and_medians():
    """One run of each in turn; the median is of the runs after the warm-up, in milliseconds."""
    order, now = [], [0.0]

    def call(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds.pop(0) if len(seconds) > 1 else seconds[0]

        return run

    fast, slow = [9.0] * 10 + [0.001, 0.5, 0.002], [9.0] * 10 + [0.004, 0.004, 0.004]
    medians = time_in_turns([call("fast", fast), call("slow", slow)], num_runs=3, clock=lambda: now[0])
    assert medians == pytest.approx([2.0, 4.0])
    assert order == ["fast", "slow"] * 13
