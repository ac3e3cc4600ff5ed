"""Which steps a deployment takes, for every kind of start, target and machine."""

from __future__ import annotations

import re

import pytest

from pargo_export.deploy import DeployOptions, make_plan
from pargo_export.errors import (
    BundleError,
    CalibrationError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    QuantizationError,
)

INT8 = {"precision": "int8", "dialect": "tensorrt"}


def steps_of(plan):
    """Return the steps as words."""
    return [f"{step.action} {step.name}" for step in plan.steps]


def test_a_variant_that_fits_is_only_built(bundle, machine, add_variants):
    """Nothing else is done; on a machine without a GPU it is not run."""
    add_variants(bundle, int8_rtx={**INT8, "target": "rtx"})
    plan = make_plan(bundle, DeployOptions(precision="int8", target="rtx"), facts=machine("none", "rtx"))
    assert steps_of(plan) == ["build int8-rtx"]
    assert plan.reuses == ("variant int8-rtx",)
    assert (plan.variant, plan.baseline, plan.elsewhere, plan.flavor) == ("int8-rtx", None, "", "rtx")
    assert plan.notes == ("the engine is built and not run: no GPU that it is for is in this machine",)


def test_a_missing_variant_is_made_from_the_calibration(bundle, machine):
    """By `quantize`, which needs no PyTorch."""
    facts = machine("none", "rtx", export=("torch",))
    plan = make_plan(bundle, DeployOptions(precision="int8", target="rtx"), facts=facts)
    assert steps_of(plan) == ["quantize int8-rtx", "build int8-rtx"]
    assert plan.reuses == ("calibration default",)


def test_on_its_gpu_it_is_run_and_compared(bundle, machine, add_variants):
    """An FP16 engine is built too, and both are timed."""
    add_variants(
        bundle, int8_orin={**INT8, "target": "orin"}, fp16_orin={"precision": "float16", "target": "orin"}
    )
    plan = make_plan(bundle, DeployOptions(precision="int8"), facts=machine("orin", "tensorrt"))
    assert steps_of(plan) == [
        "build int8-orin",
        "verify int8-orin",
        "build fp16-orin",
        "verify fp16-orin",
        "compare int8-orin",
    ]
    assert (str(plan.target), plan.flavor, plan.steps[-1].drops_slower) == ("orin", "tensorrt", False)


def test_a_float_engine_is_compared_with_nothing(bundle, machine, add_variants):
    """It is run against float32."""
    add_variants(bundle, fp16={"precision": "float16"})
    plan = make_plan(bundle, DeployOptions(), facts=machine("pc", "tensorrt"))
    assert steps_of(plan) == ["build fp16", "verify fp16"]


def test_fastest_drops_the_slower(bundle, machine, add_variants):
    """And makes the FP16 variant if there is none."""
    add_variants(bundle, int8=INT8)
    plan = make_plan(bundle, DeployOptions(precision="int8", keep="fastest"), facts=machine("pc", "tensorrt"))
    assert "quantize fp16-cuda" in steps_of(plan)
    assert plan.steps[-1].action == "compare"
    assert plan.steps[-1].drops_slower


def test_fastest_without_a_gpu_builds_both(bundle, machine, add_variants):
    """The same command on the device decides."""
    add_variants(bundle, int8=INT8, fp16={"precision": "float16"})
    options = DeployOptions(precision="int8", keep="fastest")
    plan = make_plan(bundle, options, facts=machine("none", "rtx"))
    assert steps_of(plan) == ["build int8", "build fp16"]
    assert any("times them, and keeps the faster" in note for note in plan.notes)


def test_fastest_needs_something_to_choose(bundle, machine, add_variants):
    """There is one float engine only."""
    add_variants(bundle, fp16={"precision": "float16"})
    with pytest.raises(ConfigError, match="fp16 was asked for"):
        make_plan(bundle, DeployOptions(keep="fastest"), facts=machine("pc", "tensorrt"))


def test_an_engine_for_other_gpus_is_not_run_here(bundle, machine, add_variants):
    """RTX engines for 8.6 on a machine with 8.9."""
    add_variants(bundle, int8=INT8, fp16={"precision": "float16"})
    for capabilities, actions in (
        ("sm86", ["build"]),
        ("sm86,sm89", ["build", "verify", "build", "verify", "compare"]),
    ):
        options = DeployOptions(precision="int8", target=f"rtx:{capabilities}")
        plan = make_plan(bundle, options, facts=machine("pc", "rtx"))
        assert [step.action for step in plan.steps] == actions


def test_elsewhere_is_prepared(bundle, machine):
    """The variant, and the FP16 one for the comparison, so that the device has nothing to make."""
    plan = make_plan(bundle, DeployOptions(precision="int8", target="orin"), facts=machine("pc", "tensorrt"))
    assert steps_of(plan) == ["quantize int8-orin", "quantize fp16-orin", "prepare int8-orin"]
    assert plan.elsewhere.startswith("TensorRT has no cross build: an engine for orin is built on one")


def test_elsewhere_needs_no_tensorrt(bundle, machine):
    """What is not built here needs nothing to build it."""
    make_plan(bundle, DeployOptions(precision="int8", target="thor"), facts=machine("none"))


def test_here_tensorrt_is_looked_for_before_any_work(bundle, machine):
    """And the message is that of the adapter."""
    with pytest.raises(MissingDependencyError, match="tensorrt is not installed"):
        make_plan(bundle, DeployOptions(precision="int8"), facts=machine("orin"))


def test_without_a_way_to_fp16_there_is_no_comparison(uncalibrated, machine, add_variants):
    """Said in a note; only `fastest` insists."""
    add_variants(uncalibrated, int8=INT8)
    facts = machine("pc", "tensorrt")
    plan = make_plan(uncalibrated, DeployOptions(precision="int8"), facts=facts)
    assert steps_of(plan) == ["build int8", "verify int8"]
    assert any("no comparison with FP16" in note for note in plan.notes)
    with pytest.raises(CalibrationError, match="the bundle has no calibration"):
        make_plan(uncalibrated, DeployOptions(precision="int8", keep="fastest"), facts=facts)


def test_calibration_data_are_used_once(uncalibrated, machine):
    """For the quantized variant and for the FP16 one."""
    options = DeployOptions(precision="int8", target="orin", calibration_data="photos")
    plan = make_plan(uncalibrated, options, facts=machine())
    assert steps_of(plan) == [
        "calibrate default",
        "quantize int8-orin",
        "quantize fp16-orin",
        "prepare int8-orin",
    ]
    assert plan.steps[0].describe() == "on photos"


def test_data_beside_a_calibration_are_not_read(bundle, machine):
    """The calibration of that name stays what it is, and a note says so."""
    options = DeployOptions(precision="int8", target="rtx", calibration_data="photos")
    plan = make_plan(bundle, options, facts=machine("none", "rtx"))
    assert "calibrate" not in [step.action for step in plan.steps]
    assert sum("photos was not read" in note for note in plan.notes) == 1


def test_missing_calibration_names_both_commands(uncalibrated, machine):
    """The option, and the command."""
    with pytest.raises(CalibrationError, match=re.escape("--calibration-data PHOTOS")) as caught:
        make_plan(uncalibrated, DeployOptions(precision="int8", target="rtx"), facts=machine("none", "rtx"))
    assert f"pargo-export calibrate {uncalibrated} --data PHOTOS" in str(caught.value)


def test_a_device_that_cannot_quantize_says_what_to_do(bundle, machine):
    """The packages, and the command for another machine."""
    facts = machine("orin", "tensorrt", quantize=("onnx", "onnx_ir"))
    with pytest.raises(MissingDependencyError, match="needs onnx, onnx_ir") as caught:
        make_plan(bundle, DeployOptions(precision="int8"), facts=facts)
    assert f"pargo-export quantize {bundle} --int8 --target orin" in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "gpu"),
    [
        ({"target": "orin"}, "none"),
        ({}, "orin"),
        ({"target": "rtx:sm86"}, "none"),
        ({"target": "rtx:sm89,sm86"}, "none"),
    ],
)
def test_fp8_is_refused_before_any_work(bundle, machine, choices, gpu):
    """Where a compute capability has none."""
    options = DeployOptions(precision="fp8", **choices)
    with pytest.raises((QuantizationError, EngineError), match="FP8"):
        make_plan(bundle, options, facts=machine(gpu, "tensorrt", "rtx"))


def test_a_named_variant_is_taken_as_it_is(bundle, machine):
    """Whatever its precision and target."""
    plan = make_plan(bundle, DeployOptions(variant="bf16", target="rtx"), facts=machine("none", "rtx"))
    assert (plan.variant, plan.precision) == ("bf16", "bfloat16")
    with pytest.raises(BundleError, match="there is no variant 'fp64'"):
        make_plan(bundle, DeployOptions(variant="fp64", target="rtx"), facts=machine("none", "rtx"))


def test_float32_cannot_be_made_from_a_bundle(bundle, machine, add_variants):
    """It is exported; the message has the command."""
    add_variants(bundle, fp32={"component": "projector"})
    with pytest.raises(QuantizationError, match="no variant of the whole model in float32; export one"):
        make_plan(bundle, DeployOptions(precision="fp32", target="rtx"), facts=machine("none", "rtx"))


class TestFromACheckpoint:
    """A file that need not be one: of a checkpoint nothing is read for a plan."""

    @pytest.fixture
    def checkpoint(self, tmp_path):
        """Return the file."""
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"weights")
        return path

    def test_everything_is_made(self, checkpoint, tmp_path, machine):
        """The reference, the graph to quantize, the calibration, the quantized graph."""
        options = DeployOptions(precision="int8", target="orin", calibration_data="photos", max_batch=12)
        plan = make_plan(checkpoint, options, output=tmp_path / "new", facts=machine())
        assert steps_of(plan) == [
            "export fp32",
            "export fp16-orin",
            "calibrate default",
            "quantize int8-orin",
            "prepare int8-orin",
        ]
        assert plan.baseline == "fp16-orin"
        assert [(step.target, step.max_batch) for step in plan.steps[:2]] == [("cpu", 12), ("orin", 12)]

    @pytest.mark.parametrize(
        ("precision", "exports"),
        [
            ("fp16", ["export fp32", "export fp16-rtx"]),
            ("bf16", ["export fp32", "export bf16-rtx"]),
            ("fp32", ["export fp32-rtx"]),
        ],
    )
    def test_float_graphs_are_exported_for_the_target(
        self, checkpoint, tmp_path, machine, precision, exports
    ):
        """With a float32 graph to hold the engine against."""
        options = DeployOptions(precision=precision, target="rtx")
        plan = make_plan(checkpoint, options, output=tmp_path / "new", facts=machine("none", "rtx"))
        assert steps_of(plan) == [*exports, f"build {precision}-rtx"]

    def test_what_the_bundle_has_is_reused(self, checkpoint, bundle, machine, add_variants):
        """If it was made for the target and for batches as large."""
        add_variants(bundle, fp16_rtx={"precision": "float16", "target": "rtx"})
        facts = machine("none", "rtx")
        options = DeployOptions(precision="int8", target="rtx")
        plan = make_plan(checkpoint, options, output=bundle, facts=facts)
        assert steps_of(plan) == ["quantize int8-rtx", "build int8-rtx"]
        assert plan.reuses == ("variant fp32", "variant fp16-rtx", "calibration default")
        for other in ({"target": "cuda"}, {"target": "rtx", "max_batch": 6}):
            plan = make_plan(
                checkpoint,
                DeployOptions(precision="fp16", **other),
                output=bundle,
                facts=machine("pc", "rtx"),
            )
            assert "export" in [step.action for step in plan.steps]

    def test_a_bundle_has_to_be_named(self, checkpoint, machine):
        """The checkpoint's directory is not ours to write to."""
        with pytest.raises(ConfigError, match=re.escape("name one (-o BUNDLE, output=...)")):
            make_plan(checkpoint, DeployOptions(target="orin"), facts=machine())

    def test_a_device_without_pytorch_says_what_to_do(self, checkpoint, tmp_path, machine):
        """Export elsewhere, copy, and give the bundle."""
        facts = machine("orin", "tensorrt", export=("torch", "onnxscript"))
        with pytest.raises(MissingDependencyError, match="needs torch, onnxscript") as caught:
            make_plan(checkpoint, DeployOptions(), output=tmp_path / "new", facts=facts)
        assert "give the bundle here" in str(caught.value)

    def test_a_variant_is_of_a_bundle(self, checkpoint, tmp_path, machine):
        """A checkpoint has none."""
        options = DeployOptions(variant="fp16", target="orin")
        with pytest.raises(ConfigError, match="names a graph of a bundle"):
            make_plan(checkpoint, options, output=tmp_path / "new", facts=machine())


def test_a_bundle_is_extended_where_it_is(bundle, tmp_path, machine):
    """Another output is refused, its own name is not."""
    options = DeployOptions(precision="fp32", target="rtx")
    with pytest.raises(ConfigError, match="which is extended where it is"):
        make_plan(bundle, options, output=tmp_path / "other", facts=machine("none", "rtx"))
    make_plan(bundle, options, output=f"{bundle}/", facts=machine("none", "rtx"))


def test_nothing_at_the_source(tmp_path, machine):
    """Neither a bundle nor a checkpoint."""
    with pytest.raises(BundleError, match="does not exist; expected a bundle or a checkpoint"):
        make_plan(tmp_path / "nothing", DeployOptions(target="orin"), facts=machine())
