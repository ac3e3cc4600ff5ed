"""What is measured: combinations, baselines and batch sizes."""

from __future__ import annotations

import pytest

from pargo_export.bench.options import BenchOptions
from pargo_export.bench.subjects import choose_batches, plan_reference, plan_subjects
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, BundleError, ConfigError


@pytest.fixture
def bundle(exported_bundle):
    """Return the bundle with fp32 and bf16 (batch 4) and a projector (batch 2)."""
    return Bundle.open(exported_bundle)


def names(plan):
    """Return the names of the subjects."""
    return [spec.facts.name for spec in plan.subjects]


def test_by_default_what_the_runtime_would_choose(bundle):
    """One subject: the best variant on the best backend here."""
    (spec,) = plan_subjects(bundle, BenchOptions(threads=1)).subjects
    assert spec.facts.variant == "fp32"
    assert spec.arguments["threads"] == 1
    assert spec.limits == bundle.variant("fp32").evidence.limits
    assert spec.takes_load


def test_every_combination_that_runs(bundle):
    """Combinations that cannot run are left out with the reason; the same graph is measured once."""
    options = BenchOptions(backends=("onnxruntime", "openvino", "auto"), variants=("fp32", "bf16"))
    plan = plan_subjects(bundle, options)
    assert {"fp32 on onnxruntime", "fp32 on openvino"} <= set(names(plan))
    assert len(set(names(plan))) == len(names(plan))
    assert any(text.startswith("bf16 on onnxruntime: ") for text in plan.left_out)


def test_combinations_that_are_named(bundle):
    """Only those, in their order, whatever the other two options say."""
    options = BenchOptions(variants=("bf16",), combinations=(("openvino", "fp32"), ("onnxruntime", "fp32")))
    assert names(plan_subjects(bundle, options)) == ["fp32 on openvino", "fp32 on onnxruntime"]


def test_nothing_that_runs(bundle):
    """If nothing is left, the reasons are the error; unknown names are errors too."""
    with pytest.raises(
        BackendError, match=r"nothing of what is to be measured can run here: bf16 on onnxruntime"
    ):
        plan_subjects(bundle, BenchOptions(backends=("onnxruntime",), variants=("bf16",)))
    with pytest.raises(BackendError, match="unknown backend"):
        plan_subjects(bundle, BenchOptions(backends=("abacus",)))
    with pytest.raises(BundleError, match="no variant 'fp64'"):
        plan_subjects(bundle, BenchOptions(variants=("fp64",)))
    with pytest.raises(ConfigError, match="takes image features"):
        plan_subjects(bundle, BenchOptions(variants=("external",)))


def test_baselines_come_last(bundle, tmp_path):
    """Libraries and other bundles, with the checkpoint where it is needed."""
    path = str(bundle.path)
    options = BenchOptions(
        backends=("onnxruntime",), baselines=("torch", path), checkpoint=tmp_path / "model.pt", threads=2
    )
    plan = plan_subjects(bundle, options)
    assert [spec.facts.is_baseline for spec in plan.subjects] == [False, True, True]
    library, other = plan.subjects[1:]
    assert (library.facts.kind, library.facts.backend, library.takes_load) == ("torch", "torch", False)
    assert library.arguments["checkpoint"] == str(tmp_path / "model.pt")
    assert (other.facts.kind, other.facts.bundle) == ("runtime", path)
    assert other.facts.name.endswith(f" of {path}")
    assert other.arguments["name"] == other.facts.name
    with pytest.raises(BundleError):
        plan_subjects(bundle, BenchOptions(baselines=(str(tmp_path),)))


def test_batches(bundle):
    """Those that fit everything by default; one that is too large for a graph is refused with its name."""
    plan = plan_subjects(bundle, BenchOptions(backends=("onnxruntime",), variants=("fp32",)))
    assert choose_batches(bundle, plan.subjects, BenchOptions()) == (1, 2, 4)
    assert choose_batches(bundle, plan.subjects, BenchOptions(batches=(3, 1))) == (1, 3)
    with pytest.raises(ConfigError, match=r"found 8, but fp32 on onnxruntime was made for at most 4 images"):
        choose_batches(bundle, plan.subjects, BenchOptions(batches=(1, 8)))


def test_the_reference_is_float32_in_onnxruntime(bundle):
    """Whatever is measured, it is held against the float32 variant."""
    facts = plan_reference(bundle, "bf16", BenchOptions()).facts
    assert (facts.variant, facts.backend) == ("fp32", "onnxruntime")
