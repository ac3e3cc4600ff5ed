"""Which engine runs, and why the others do not."""

from __future__ import annotations

import dataclasses

import pytest
from bundle.samples import make_engine, make_variant
from runtime.tensorrt.engines import DEVICE, VERSIONS, write_engine_bundle

from pargo_export.bundle import Bundle, EngineTiming, Evidence, Limits, Quantization
from pargo_export.errors import BackendError, BundleError
from pargo_export.runtime import Runtime, select
from pargo_export.runtime.backends import tensorrt as backend_module
from pargo_export.runtime.backends.cuda import CUDA
from pargo_export.runtime.backends.onnxruntime import ONNXRUNTIME_CPU
from pargo_export.runtime.backends.tensorrt import TENSORRT, TENSORRT_RTX
from pargo_export.runtime.runner import RunnerOptions
from pargo_export.runtime.selection import open_runner

CPU = dataclasses.replace(ONNXRUNTIME_CPU, find_obstacle=lambda: None)
KERNELS = dataclasses.replace(CUDA, find_obstacle=lambda: None, find_variant_obstacle=lambda _: None)
FAILED = Evidence(stages=(), limits=Limits(), passed=False, reference="fp32")
PASSED = FAILED.model_copy(update={"passed": True})


def _refuse(_, engine, accept_failed):
    """Judge as the preflight does, of what these tests change."""
    if engine.device != DEVICE:
        return f"engine {engine.name}: built elsewhere; build it again on this machine: pargo-export trt B"
    failed = engine.evidence is not None and not engine.evidence.passed
    return f"engine {engine.name}: its agreement failed" if failed and not accept_failed else None


TRT = dataclasses.replace(TENSORRT, find_obstacle=lambda: None, find_engine_refusal=_refuse)
RTX = dataclasses.replace(TENSORRT_RTX, find_obstacle=lambda: None, find_engine_refusal=_refuse)
BACKENDS = [CPU, KERNELS, RTX, TRT]


def make_bundle(variants=None, **engines):
    """Return a bundle that exists in memory alone, with engines that are given by the fields that differ."""
    variants = variants or {"fp32": {"precision": "float16"}}
    made = {name: make_variant(name, **fields) for name, fields in variants.items()}
    records = {
        name: make_engine(name, **({"variant": "fp32", "device": DEVICE} | fields))
        for name, fields in engines.items()
    }
    return Bundle("B", write_engine_bundle.empty.model_copy(update={"variants": made, "engines": records}))


@pytest.fixture(autouse=True, scope="module")
def _manifest(tmp_path_factory):
    write_engine_bundle.empty = write_engine_bundle(tmp_path_factory.mktemp("engines") / "bundle").manifest


def _names(bundle, **options):
    return [str(choice) for choice in select(bundle, backends=BACKENDS, **options).candidates]


def test_engine_comes_before_the_kernels():
    """Somebody built it for this device; TensorRT before RTX, and after both what there was before."""
    bundle = make_bundle(a={"flavor": "rtx"}, b={})
    assert _names(bundle) == [
        "engine b on tensorrt",
        "engine a on tensorrt-rtx",
        "fp32 on cuda",
        "fp32 on onnxruntime",
    ]
    assert _names(bundle, backend="tensorrt-rtx") == ["engine a on tensorrt-rtx"]


def test_refused_engines_are_reported_with_their_reasons():
    """Each with its mend, and the next best backend is taken."""
    bundle = make_bundle(a={"device": make_engine().device}, b={"evidence": FAILED})
    selection = select(bundle, backends=BACKENDS)
    assert str(selection.candidates[0]) == "fp32 on cuda"
    assert selection.refusals == (
        "tensorrt-rtx: the bundle has no engine for it; build one on this machine: pargo-export trt B",
        "tensorrt: engine a: built elsewhere; build it again on this machine: pargo-export trt B",
        "tensorrt: engine b: its agreement failed",
    )
    with pytest.raises(
        BackendError, match=r"(?s)nothing can run bundle B here: .*engine a: built.*engine b: its"
    ):
        open_runner(bundle, select(bundle, backend="tensorrt", backends=BACKENDS), RunnerOptions())


def test_without_an_engine_tensorrt_is_not_even_looked_for():
    """Importing it takes time, and would say nothing."""

    def fail():
        raise AssertionError("it was looked for")

    backend = dataclasses.replace(TRT, find_obstacle=fail)
    assert (
        select(make_bundle(), backends=[backend]).refusals[0].startswith("tensorrt: the bundle has no engine")
    )


def test_measured_time_decides_among_engines():
    """By image, and only then the precision; one that was verified here comes before one that was not."""
    variants = {"fp32": {"precision": "float16"}, "int8": {"precision": "int8"}}

    def timing(batch, milliseconds):
        return EngineTiming(batch=batch, median_ms=milliseconds, num_runs=9)

    slow, fast = (
        {"timing": timing(1, 9.0), "evidence": PASSED},
        {"timing": timing(4, 12.0), "evidence": PASSED},
    )
    of_int8 = {"variant": "int8"}
    assert _names(make_bundle(variants, a={}, b=of_int8))[:2] == [
        "engine a on tensorrt",
        "engine b on tensorrt",
    ]
    assert _names(make_bundle(variants, b={}, a=of_int8))[:2] == [
        "engine b on tensorrt",
        "engine a on tensorrt",
    ]
    assert _names(make_bundle(variants, a=slow, b=of_int8 | fast))[0] == "engine b on tensorrt"
    assert _names(make_bundle(variants, a=fast, b=of_int8 | slow))[0] == "engine a on tensorrt"
    assert (
        _names(make_bundle(variants, a={"timing": timing(1, 1.0)}, b=of_int8 | slow))[0]
        == "engine b on tensorrt"
    )


def test_engine_by_its_name():
    """It settles variant and backend, and failed evidence is no obstacle then."""
    bundle = make_bundle(a={"evidence": FAILED}, b={"flavor": "rtx"})
    assert _names(bundle, engine="a") == ["engine a on tensorrt"]
    assert _names(bundle, engine="b", variant="fp32") == ["engine b on tensorrt-rtx"]
    assert _names(make_bundle(a={}, c={}), engine="c") == ["engine c on tensorrt"]
    with pytest.raises(BundleError, match="no engine 'c'; choose one of a, b"):
        select(bundle, engine="c", backends=BACKENDS)
    with pytest.raises(BundleError, match="has no engine for it; build one"):
        select(make_bundle(), engine="c", backends=BACKENDS)
    with pytest.raises(BackendError, match="'b' is of TensorRT for RTX, which tensorrt does not run; leave"):
        select(bundle, engine="b", backend="tensorrt", backends=BACKENDS)
    two = make_bundle({"fp32": {}, "other": {}}, a={})
    with pytest.raises(BundleError, match="engine 'a' is of variant 'fp32', not of 'other'; leave one"):
        select(two, engine="a", variant="other", backends=BACKENDS)


def test_engines_of_parts_are_not_exchanged():
    """An engine of the encoder does not run in place of the whole model, and counts where the encoder is named."""
    bundle = make_bundle(
        {"fp32": {"precision": "float16"}, "part": {"component": "encoder"}}, a={"variant": "part"}
    )
    assert _names(bundle)[0] == "fp32 on cuda"
    assert _names(bundle, variant="part")[0] == "engine a on tensorrt"
    assert _names(bundle, engine="a") == ["engine a on tensorrt"]


def test_variant_for_cpus_is_refused():
    """TensorRT takes no zero points; the message says how to make another variant."""
    for_cpus = Quantization(base="fp32", float_precision="float32", dialect="cpu")
    bundle = make_bundle({"fp32": {"precision": "int8", "quantization": for_cpus}}, a={})
    (refusal,) = select(bundle, backend="tensorrt", backends=BACKENDS).refusals
    assert refusal.startswith("engine a on tensorrt: it was quantized for CPUs, with zero points")


def test_the_named_engine_is_what_opens(tmp_path, monkeypatch):
    """Its name, and that it was asked for, reach the runner."""
    bundle = write_engine_bundle(tmp_path / "bundle", {"name": "one"}, {"name": "two", "evidence": FAILED})
    opened = []

    def make_runner(_bundle, engine, options, **found):
        opened.append((engine.name, options.streams, found["accept_failed"], found["tensorrt"]))
        raise BackendError("that is enough")

    monkeypatch.setattr("pargo_export.runtime.tensorrt.runner.EngineRunner", make_runner)
    monkeypatch.setattr(backend_module, "find_driver_obstacle", lambda: None)
    monkeypatch.setattr(backend_module, "find_bindings_obstacle", lambda: None)
    monkeypatch.setattr(backend_module, "find_obstacle", lambda _: None)
    monkeypatch.setattr(backend_module, "load_cuda", lambda: "CUDA")
    monkeypatch.setattr(backend_module, "find_engine_device", lambda: DEVICE)
    tensorrt = type(
        "T", (), {"version": VERSIONS["tensorrt"], "flavor": "tensorrt", "title": "T", "module": None}
    )()
    monkeypatch.setattr(backend_module, "load_tensorrt", lambda flavor: {"tensorrt": tensorrt}[flavor])
    for options in ({"engine": "two", "streams": 3}, {"backend": "tensorrt"}):
        with pytest.raises(BackendError, match="that is enough"):
            Runtime.open(bundle, **options)
    assert opened == [("two", 3, True, tensorrt), ("one", 1, False, tensorrt)]


def test_engine_must_be_of_the_bundle_the_variant_and_the_flavor():
    """Whoever opens a backend past the selection is told where engines are listed."""
    bundle = make_bundle({"fp32": {}, "other": {}}, a={}, b={"flavor": "rtx"}, c={"variant": "other"})
    for name in (None, "b", "c"):
        with pytest.raises(
            BackendError, match=rf"no engine {name!r} of variant 'fp32' .*`pargo-export inspect B` lists"
        ):
            TENSORRT.open(bundle, make_variant(), RunnerOptions(engine=name))


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("find_driver_obstacle", "no GPU; on a CPU use the backend 'onnxruntime' or 'openvino'"),
        ("find_obstacle", "no GPU"),
        ("find_bindings_obstacle", "no GPU"),
    ],
)
def test_obstacles_of_this_machine(monkeypatch, name, obstacle):
    """Driver, TensorRT and bindings are all needed; what is missing is said."""
    for other in ("find_driver_obstacle", "find_obstacle", "find_bindings_obstacle"):
        monkeypatch.setattr(
            backend_module, other, lambda *_, found=other: "no GPU" if found == name else None
        )
    assert TENSORRT.find_obstacle() == obstacle
    assert TENSORRT_RTX.find_obstacle() == obstacle
