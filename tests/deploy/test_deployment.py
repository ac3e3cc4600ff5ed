"""Deployments that are really done: engines by TensorRT for RTX, and ONNX Runtime in the place of their GPU."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from golden_cases import golden_case

from pargo_export.bundle import Bundle, EngineTiming
from pargo_export.deploy import CheckpointOptions, deploy_engine, deployment, device_check
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import BundleError, ConfigError, EngineError
from pargo_export.runtime.backends import OnnxRuntimeRunner
from pargo_export.trt import find_obstacle
from pargo_export.trt.sidecar import check_sidecar

pytestmark = pytest.mark.skipif(
    find_obstacle("rtx") is not None,
    reason="TensorRT for RTX is not installed; its builder is what works here",
)

QUANTIZED, FLOAT = "int8-weight-only-rtx", "fp16-rtx"  # variants of the bundle `deployed`
CHOICES = {
    "precision": "int8-weight-only",
    "target": "rtx:sm89",
    "max_batch": 4,
    "engine": EngineOptions(optimization_level=0),
    "threads": 1,
}


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Let ONNX Runtime run the graphs of the engines, which no GPU is there for."""
    monkeypatch.setattr(device_check, "BACKENDS", {"rtx": "onnxruntime"})


@pytest.fixture
def timed(monkeypatch):
    """Return a dictionary: median milliseconds by variant, in the place of measurements."""
    medians = {}

    def time_engines(_bundle, engines):
        return tuple(
            EngineTiming(batch=1, median_ms=medians[engine.variant], num_runs=3) for engine in engines
        )

    monkeypatch.setattr(deployment, "time_engines", time_engines)
    return medians


def actions(result):
    """Return what was done, what was up to date in brackets."""
    return [f"({done.step.action})" if done.reused else done.step.action for done in result.steps]


def test_from_a_checkpoint_to_engines(deployed):
    """What the bundle lacked is made; nothing is run, as there is no GPU."""
    assert actions(deployed) == ["export", "calibrate", "quantize", "build", "build"]
    assert deployed.plan.reuses == ("variant fp32",)
    assert (deployed.status, deployed.command) == ("built", "")
    engine, baseline = deployed.engine, deployed.baseline
    assert (engine.variant, baseline.variant) == (QUANTIZED, FLOAT)
    assert (engine.evidence, engine.timing, engine.compute_capabilities) == (None, None, ("8.9",))
    assert engine.built_as_asked.passed
    assert engine.settings["optimization_level"] == 0
    assert deployed.bundle.manifest.engines == {engine.name: engine, baseline.name: baseline}
    assert all(check.ok for check in deployed.bundle.verify())


def test_the_same_again_does_nothing(deployed, built, machine):
    """The checkpoint is compared with the bundle, the rest is found in it."""
    seen, case = [], golden_case("pargo_w2")
    again = deploy_engine(
        case.checkpoint,
        output=built,
        facts=machine("none", "rtx"),
        checkpoint=CheckpointOptions(config=str(case.config)),
        progress=seen.append,
        **CHOICES,
    )
    assert actions(again) == ["(build)"]
    assert again.engine == deployed.engine
    assert again.plan.reuses == ("variant fp32", f"variant {QUANTIZED}")
    assert seen[:2] == ["loading the checkpoint", "hashing weights"]


def test_another_checkpoint_is_refused(built, machine):
    """Although the bundle has everything that would be built: the engine would have other weights."""
    case = golden_case("pargo_small_variance")
    checkpoint = CheckpointOptions(config=str(case.config))
    with pytest.raises(BundleError, match="holds a model with other weights"):
        deploy_engine(
            case.checkpoint, output=built, facts=machine("none", "rtx"), checkpoint=checkpoint, **CHOICES
        )


@pytest.mark.usefixtures("on_the_cpu")
class TestOnItsGpu:
    """A GPU of compute capability 8.9 that is only said to be there; ONNX Runtime computes."""

    def test_it_is_verified_and_compared(self, built, machine):
        """Both engines run against float32; evidence and times are in manifest and sidecar."""
        result = deploy_engine(built, facts=machine("pc", "rtx"), **CHOICES)
        assert actions(result) == ["(build)", "verify", "(build)", "verify", "compare"]
        assert (result.status, result.dropped) == ("verified", "")
        opened = Bundle.open(built)
        for engine in (result.engine, result.baseline):
            assert engine.evidence.passed
            assert engine.timing.median_ms > 0
            assert opened.manifest.engines[engine.name] == engine
            check_sidecar(opened, engine)
        assert all(check.ok for check in opened.verify())
        again = deploy_engine(built, facts=machine("pc", "rtx"), **CHOICES)
        assert actions(again) == ["(build)", "(verify)", "(build)", "(verify)", "compare"]

    def test_a_faster_quantized_engine(self, built, machine, timed):
        """With `fastest` the FP16 one goes."""
        timed |= {QUANTIZED: 2.0, FLOAT: 3.0}
        result = deploy_engine(built, facts=machine("pc", "rtx"), keep="fastest", **CHOICES)
        assert result.steps[-1].detail.endswith(" 2 ms, fp16-rtx-sm89 3 ms at batch 1: 1.50x")
        assert not any("is slower than" in note for note in result.notes)
        assert (result.engine.variant, result.baseline, result.dropped) == (
            QUANTIZED,
            None,
            "fp16-rtx-sm89",
        )

    @pytest.mark.parametrize("keep", ["all", "fastest"])
    def test_a_slower_quantized_engine(self, built, deployed, machine, timed, keep):
        """It is reported; with `fastest` it goes, and the FP16 engine is the result."""
        timed |= {QUANTIZED: 4.0, FLOAT: 3.0}
        result = deploy_engine(built, facts=machine("pc", "rtx"), keep=keep, **CHOICES)
        quantized, other = deployed.engine, deployed.baseline
        assert any(f"is slower than {other.name} (0.75x as fast)" in note for note in result.notes)
        names = set(Bundle.open(built).manifest.engines)
        if keep == "all":
            assert names == {quantized.name, other.name}
            assert (result.engine.variant, result.dropped) == (QUANTIZED, "")
        else:
            assert names == {other.name}
            assert (result.engine.variant, result.baseline) == (FLOAT, None)
            assert result.dropped == quantized.name
            assert not (built / quantized.file).exists()
            assert not (built / quantized.sidecar).exists()

    def test_an_engine_past_its_limits_is_removed(self, built, deployed, machine, monkeypatch):
        """With the reason and what to do."""
        self._spoil(monkeypatch)
        with pytest.raises(EngineError, match="misses its limits on this device") as caught:
            deploy_engine(built, facts=machine("pc", "rtx"), **CHOICES)
        assert "it was removed from the bundle" in str(caught.value)
        assert "--allow-below" in str(caught.value)
        assert set(Bundle.open(built).manifest.engines) == {deployed.baseline.name}
        assert not (built / deployed.engine.file).exists()

    def test_an_engine_past_its_limits_can_be_allowed(self, built, machine, monkeypatch, timed):
        """It stays, marked."""
        self._spoil(monkeypatch)
        timed |= {QUANTIZED: 2.0, FLOAT: 3.0}
        result = deploy_engine(built, facts=machine("pc", "rtx"), allow_below=True, **CHOICES)
        assert result.engine.evidence.passed is False
        assert Bundle.open(built).manifest.engines[result.engine.name] == result.engine

    @staticmethod
    def _spoil(monkeypatch):
        """Let the first runs, which are those of the engine, be wrong by a fifth."""
        execute, calls = OnnxRuntimeRunner._execute, []

        def wrong(self, feed):
            calls.append(1)
            factor = 1.0 if len(calls) > 3 else 1.2
            return {name: value * factor for name, value in execute(self, feed).items()}

        monkeypatch.setattr(OnnxRuntimeRunner, "_execute", wrong)

    def test_a_bad_fp16_engine_prevents_only_the_comparison(self, built, deployed, machine, monkeypatch):
        """The engine that was asked for is none the worse."""
        check = device_check.check_agreement

        def refuse(bundle, engine):
            if engine.variant == FLOAT:
                raise EngineError("it overflows")
            return check(bundle, engine)

        monkeypatch.setattr(deployment, "check_agreement", refuse)
        result = deploy_engine(built, facts=machine("pc", "rtx"), **CHOICES)
        assert (result.status, result.baseline) == ("verified", None)
        assert "no comparison with fp16-rtx: it overflows; it was removed from the bundle" in result.notes
        assert set(Bundle.open(built).manifest.engines) == {deployed.engine.name}


def test_what_cannot_run_is_kept_unverified(built, machine):
    """A GPU is said to be there, but nothing that runs engines: the reason is a note, no other engine is looked at."""
    result = deploy_engine(built, facts=machine("pc", "rtx"), **CHOICES)
    assert (result.status, actions(result)) == ("built", ["(build)"])
    assert any("was built and not run here: tensorrt-rtx: " in note for note in result.notes)
    assert (result.engine.evidence, result.baseline) == (None, None)


def test_for_another_device_the_bundle_is_prepared(bundle, machine):
    """No engine, but the variant, the one to compare with, and the command."""
    result = deploy_engine(
        bundle, facts=machine("none", "rtx"), precision="int8-weight-only", target="orin", threads=1
    )
    assert (result.status, result.engine) == ("prepared", None)
    assert result.command == "pargo-export trt bundle --int8-weight-only --target orin"
    assert {"int8-weight-only-orin", "fp16-orin"} <= set(result.bundle.manifest.variants)
    assert result.bundle.manifest.engines == {}
    assert actions(result) == ["quantize", "quantize", "prepare"]


def test_a_cancelled_build_leaves_the_bundle(bundle, machine):
    """The event stops the build; what was there is there."""
    before = (bundle / "manifest.json").read_bytes()
    cancel = threading.Event()
    facts, choices = machine("none", "rtx"), {"precision": "fp32", "target": "rtx:sm89"}
    with pytest.raises(EngineError, match="cancelled"):
        deploy_engine(
            bundle, facts=facts, cancel=cancel, advance=lambda _done, _total: cancel.set(), **choices
        )
    assert (bundle / "manifest.json").read_bytes() == before
    with pytest.raises(EngineError, match="cancelled; what was finished before is in the bundle"):
        deploy_engine(bundle, facts=facts, cancel=cancel, **choices)


def test_a_device_needs_no_pytorch(built):
    """Where neither it nor what exports is installed, a bundle with the variants suffices."""
    code = f"""
import sys
for name in ("torch", "onnxscript", "transformers", "triton", "onnxruntime"):
    sys.modules[name] = None
from pargo_export import EngineOptions, deploy_engine
options = dict(engine=EngineOptions(optimization_level=0), max_batch=4)
result = deploy_engine({str(built)!r}, precision="int8-weight-only", target="rtx:sm89", **options)
print(result.status, result.steps[0].reused)
result = deploy_engine({str(built)!r}, precision="int8-weight-only", target="orin", **options)
print(result.status, result.command)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "built True",
        "prepared pargo-export trt bundle --int8-weight-only --target orin --max-batch 4 --optimization-level 0",
    ], done.stderr


def test_unknown_options(bundle, machine):
    """With the known ones."""
    with pytest.raises(ConfigError, match="unknown deployment option speed; known: precision, variant"):
        deploy_engine(bundle, facts=machine("none", "rtx"), speed="high")
