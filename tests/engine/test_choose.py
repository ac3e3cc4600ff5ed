"""Which variant is built, and by which TensorRT."""

from __future__ import annotations

import pytest

from pargo_export.bundle import Bundle
from pargo_export.engine import choose
from pargo_export.engine.choose import choose_flavor, choose_variant
from pargo_export.errors import BundleError, EngineError, MissingDependencyError

pytest.importorskip("tensorrt_rtx")


def only(bundle, *names):
    """Return a bundle with these variants."""
    bundle = Bundle.open(bundle)
    variants = {name: bundle.manifest.variants[name] for name in names}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"variants": variants}))


def test_a_variant_is_named_or_the_only_one(engine_bundle):
    """Of several the user has to name one."""
    assert choose_variant(only(engine_bundle, "fp16", "fp8"), "fp8").name == "fp8"
    assert choose_variant(only(engine_bundle, "fp16", "int8-cpu"), None).name == "fp16"
    with pytest.raises(EngineError, match="choose one of fp16, fp8"):
        choose_variant(only(engine_bundle, "fp16", "fp8"), None)
    with pytest.raises(BundleError, match="there is no variant 'x'"):
        choose_variant(only(engine_bundle, "fp16"), "x")


def test_the_dialect_of_cpus_is_refused_with_the_mend(engine_bundle):
    """Unsigned activations are refused before anything is parsed."""
    with pytest.raises(
        EngineError, match=r"unsigned activations.*pargo-export quantize BUNDLE --int8 --target"
    ):
        choose_variant(only(engine_bundle, "int8-cpu"), "int8-cpu")
    with pytest.raises(EngineError, match=r"no variant that TensorRT can build: .*unsigned.*export one"):
        choose_variant(only(engine_bundle, "int8-cpu"), None)
    with pytest.raises(EngineError, match="it has no variants"):
        choose_variant(only(engine_bundle), None)


def test_weight_only_variants_of_cpus_are_taken(engine_bundle):
    """No activation of theirs is quantized, so the dialect does not matter."""
    bundle = only(engine_bundle, "weights")
    weights = bundle.variant("weights")
    quantization = weights.quantization.model_copy(update={"dialect": "cpu"})
    variants = {"weights": weights.model_copy(update={"quantization": quantization})}
    changed = Bundle(bundle.path, bundle.manifest.model_copy(update={"variants": variants}))
    assert choose_variant(changed, None).name == "weights"


@pytest.mark.parametrize(
    ("installed", "gpu", "capabilities", "expected"),
    [
        (("tensorrt", "rtx"), True, (), "tensorrt"),
        (("tensorrt", "rtx"), False, (), "rtx"),
        (("tensorrt", "rtx"), True, ("8.6",), "rtx"),
        (("rtx",), True, (), "rtx"),
        (("tensorrt",), False, (), r"no TensorRT can build here: tensorrt: no GPU; rtx: rtx is missing"),
        ((), True, (), r"tensorrt: tensorrt is missing; rtx: rtx is missing"),
    ],
)
def test_auto_takes_tensorrt_where_it_has_a_gpu(monkeypatch, installed, gpu, capabilities, expected):
    """Else RTX, which needs none; where neither can build, both reasons are told."""
    monkeypatch.setattr(choose, "find_driver_obstacle", lambda: None if gpu else "no GPU")
    monkeypatch.setattr(
        choose, "find_obstacle", lambda name: None if name in installed else f"{name} is missing"
    )
    monkeypatch.setattr(choose, "load_tensorrt", lambda name: name)
    if " " in expected:
        with pytest.raises(EngineError, match=expected):
            choose_flavor("auto", capabilities=capabilities)
    else:
        assert choose_flavor("auto", capabilities=capabilities) == expected


def test_a_flavor_that_was_named_is_taken_or_refused(monkeypatch):
    """TensorRT cannot build without the GPU; RTX can."""
    monkeypatch.setattr(choose, "find_driver_obstacle", lambda: "no GPU is here")
    assert choose_flavor("rtx").flavor == "rtx"
    real = choose_flavor("rtx")
    monkeypatch.setattr(choose, "load_tensorrt", lambda _: real)
    with pytest.raises(EngineError, match=r"measures kernels on the GPU.*no GPU is here.*--flavor rtx"):
        choose_flavor("tensorrt")


def test_what_is_not_installed_is_said(monkeypatch):
    """A flavor that was named and is missing is a missing package."""

    def missing(name):
        raise MissingDependencyError(f"{name} is not installed")

    monkeypatch.setattr(choose, "load_tensorrt", missing)
    with pytest.raises(MissingDependencyError, match="tensorrt is not installed"):
        choose_flavor("tensorrt")
