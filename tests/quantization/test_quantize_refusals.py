"""What is refused, with the reason and the bundle as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from bundle.samples import files_below
from onnx import numpy_helper

from pargo_calibration import load_recipe
from pargo_export.bundle import Bundle, BundleTransaction, Limits
from pargo_export.errors import (
    AccuracyError,
    BackendError,
    BundleError,
    CalibrationError,
    ConfigError,
    IntegrityError,
    QuantizationError,
)
from pargo_export.graph import save
from pargo_export.quantization import quantize as quantize_module
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize
from pargo_export.runtime import Runtime

ABSURD = Limits(mean_cosine=0.999999, sqnr_db=90.0)


@pytest.fixture
def unchanged(bundle):
    """A bundle that the test must not change, nor leave anything beside."""
    before = files_below(bundle), sorted(bundle.parent.iterdir())
    yield bundle
    assert (files_below(bundle), sorted(bundle.parent.iterdir())) == before


def rewrite(bundle, **changes):
    """Change fields of the calibration in the manifest."""
    with BundleTransaction(bundle) as transaction:
        calibration = transaction.previous.calibrations["default"].model_copy(update=changes)
        transaction.commit(transaction.previous.merged(calibrations=[calibration]))
    return bundle


def test_the_gate_refuses_what_misses_its_limits(unchanged):
    """The message has the limits, the worst measurement and four ways out."""
    with pytest.raises(AccuracyError) as caught:
        quantize(unchanged, limits=ABSURD, threads=1)
    message = str(caught.value)
    for part in ("24 of 24 measurements", "mean_cosine 0.999999, sqnr_db 90.0", "--budget", "--allow-below"):
        assert part in message
    worst = message.partition("the worst: ")[2].partition(":")[0]
    assert worst.split(" on ")[0] in {
        "image_features",
        "visual_tokens",
        *map("query_layer_{}".format, range(4)),
    }


def test_a_limit_on_one_image_is_enough(unchanged, quantized_bundle):
    """The worst image decides, not the mean of all."""
    evidence = Bundle.open(quantized_bundle).variant("int8-cpu").evidence
    cosines = sorted(item.mean_cosine for item in evidence.stages)
    limits = Limits(mean_cosine=(cosines[0] + cosines[1]) / 2)
    with pytest.raises(AccuracyError, match="1 of 24 measurements miss"):
        quantize(unchanged, limits=limits, threads=1)


def test_what_is_allowed_below_is_marked(bundle):
    """It is in the bundle as failed: chosen only by name, and not taken for good when asked for again."""
    result = quantize(bundle, limits=ABSURD, allow_below=True, threads=1)
    assert not result.variant.evidence.passed
    assert result.variant.evidence.limits == ABSURD
    with Runtime.open(bundle, variant="int8-cpu", threads=1) as runtime:
        assert runtime.variant.name == "int8-cpu"
    with Runtime.open(bundle, threads=1) as runtime:
        assert runtime.variant.name != "int8-cpu"
    with pytest.raises(AccuracyError, match=r"already has variant 'int8-cpu'.*--allow-below"):
        quantize(bundle, limits=ABSURD)
    assert quantize(bundle, limits=ABSURD, allow_below=True).reused


def test_a_failed_variant_alone_does_not_run_by_itself(bundle):
    """The runtime says why."""
    quantize(bundle, limits=ABSURD, allow_below=True, threads=1)
    manifest = bundle / "manifest.json"
    values = json.loads(manifest.read_text("utf-8"))
    values["variants"] = {"int8-cpu": values["variants"]["int8-cpu"]}
    manifest.write_text(json.dumps(values), "utf-8")
    with pytest.raises(BackendError, match="its parity with the reference failed; name the variant"):
        Runtime.open(bundle)


def test_a_name_that_is_taken_is_refused(quantized_bundle):
    """Unless the variant is to be replaced; the message says how."""
    before = files_below(quantized_bundle)
    with pytest.raises(QuantizationError, match=r"already has a variant 'int8-cpu', made otherwise.*--force"):
        quantize(quantized_bundle, recipe="int8-mse", name="int8-cpu")
    assert files_below(quantized_bundle) == before


def test_a_variant_is_replaced_on_demand(bundle):
    """The new one stands in its place, the other files stay."""
    first = quantize(bundle, threads=1)
    before = files_below(bundle)
    second = quantize(bundle, recipe="int8-mse", force=True, threads=1)
    after = files_below(bundle)
    assert {name for name in after if after[name] != before[name]} == {"manifest.json", "onnx/int8-cpu.onnx"}
    assert (first.variant.quantization.recipe, second.variant.quantization.recipe) == ("int8", "int8-mse")
    assert not quantize(bundle, recipe="int8-mse", force=True, threads=1).reused


@pytest.mark.parametrize(
    ("choices", "name"),
    [({}, "fp32"), ({"base": "fp32-cuda", "target": "cuda"}, "fp32-cuda"), ({"target": "cuda"}, "fp32")],
)
def test_what_it_is_made_from_cannot_be_replaced(unchanged, choices, name):
    """Neither base nor reference nor what was observed, even on demand."""
    with pytest.raises(QuantizationError, match=f"{name!r} is what the new one is made from or held against"):
        quantize(unchanged, **choices, name=name, force=True, threads=1)


def test_quantizing_twice_is_refused(bundle):
    """A quantized variant is no base; it is not chosen by itself either."""
    quantize(bundle, threads=1)
    with pytest.raises(QuantizationError, match=r"'int8-cpu' is quantized already.*quantize 'fp32'"):
        quantize(bundle, base="int8-cpu", name="twice")
    assert quantize(bundle, recipe="int8-mse", name="other", threads=1).variant.quantization.base == "fp32"


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        (
            {"calibration": "other"},
            CalibrationError,
            r"no calibration 'other' \(it has: default\).*calibrate BUNDLE",
        ),
        ({"base": "unmerged"}, CalibrationError, "rewrites .only one of the two has merge-qkv"),
        ({"base": "external"}, CalibrationError, r"component all \(the variant: projector\)"),
        ({"base": "bf16"}, QuantizationError, r"found bf16 .*expected a variant in float32"),
        ({"base": "fp99"}, BundleError, "no variant 'fp99'"),
        ({"keep": ("tower.blocks.9.*",)}, QuantizationError, r"keep names tower\.blocks\.9\.\*, which"),
        ({"keep": ("*",)}, QuantizationError, r"no linear is left to quantize \(kept by '\*'\)"),
        ({"precisoin": "int8"}, ConfigError, "unknown quantization option precisoin; known: precision"),
        ({"recipe": "int7"}, QuantizationError, "'int7' is unknown; choose one of"),
        ({"precision": "fp8"}, QuantizationError, "'cpu' cannot compute FP8"),
        ({"precision": "fp8", "target": "orin"}, QuantizationError, "'orin' cannot compute FP8"),
    ],
)
def test_choices_that_do_not_fit_are_refused(unchanged, choices, error, message):
    """Each says what was found and what there is."""
    with pytest.raises(error, match=message):
        quantize(unchanged, **choices, threads=1)


def test_a_recipe_for_another_graph_is_refused(unchanged):
    """Patterns that name nothing list the blocks of the graph."""
    recipe = load_recipe("int8").model_copy(
        update={"keep": (type(load_recipe("int8").keep[0])(pattern="tower.blocks.77.*", reason="no"),)}
    )
    with pytest.raises(
        QuantizationError,
        match=r"tower\.blocks\.77\.\*.*its blocks: tower\.patch_embedding, tower\.blocks\.0",
    ):
        quantize(unchanged, recipe=recipe, threads=1)


def test_smoothing_that_was_not_observed_is_refused(unchanged):
    """The ranges of smoothed activations come from calibration alone."""
    recipe = load_recipe("int8")
    other = recipe.model_copy(update={"smooth": recipe.smooth.model_copy(update={"alpha": 0.8})})
    with pytest.raises(
        CalibrationError, match=r"observed smoothing 1\.0, the recipe wants 0\.8.*--smoothing 0\.8"
    ):
        quantize(unchanged, recipe=other, threads=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_sha256": "f" * 64}, "weights .sha256 ffffffffffff"),
        ({"component": "encoder"}, "component encoder"),
        ({"rewrites": ("merge-qkv",)}, "rewrites .only one of the two has"),
    ],
)
def test_a_calibration_of_another_graph_is_refused(bundle, changes, message):
    """It names what differs; padding alone is no difference."""
    with pytest.raises(CalibrationError, match=f"observed another graph.*{message}.*calibrate again"):
        quantize(rewrite(bundle, **changes), threads=1)
    assert "int8-cpu" not in Bundle.open(bundle).manifest.variants


def test_a_calibration_of_an_unpadded_graph_fits_a_padded_one(quantized_bundle):
    """The statistics of fp32 made int8-cuda from the padded graph, as accurate as the other."""
    bundle = Bundle.open(quantized_bundle)
    rewrites = {name: set(bundle.variant(name).rewrites) for name in ("fp32", "int8-fp32")}
    assert rewrites["fp32"] ^ rewrites["int8-fp32"] == {"pad-swiglu"}
    assert bundle.variant("int8-fp32").evidence.passed


def test_without_calibration_it_says_how_to_make_one(uncalibrated):
    """The most likely mistake."""
    with pytest.raises(
        CalibrationError, match=r"no calibration 'default' \(it has: none\); make one first: pargo-export"
    ):
        quantize(uncalibrated)


@pytest.mark.parametrize(
    "name", ["onnx/fp32.onnx", "default.statistics.safetensors", "default.evaluation.safetensors"]
)
def test_damaged_files_are_refused(bundle, name):
    """Base, statistics and images are hashed before they are used."""
    path = next(path for path in bundle.rglob("*") if path.as_posix().endswith(name))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"{name} has sha256"):
        quantize(bundle, threads=1)


def test_damaged_weights_beside_the_base_are_refused(bundle, monkeypatch):
    """They belong to the graph; a variant written again without such a file leaves none behind."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 0)
    quantize(bundle, precision="float16", target="cuda", name="half", threads=1)
    weights = bundle / "onnx/half.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"half\.onnx\.data has sha256"):
        quantize(bundle, target="cuda", base="half", threads=1)
    weights.write_bytes(content)
    result = quantize(bundle, target="cuda", base="half", threads=1)
    assert result.variant.quantization.base == "half"
    assert (bundle / "onnx/int8-cuda.onnx.data").is_file()
    monkeypatch.undo()
    quantize(bundle, target="cuda", base="half", force=True, threads=1)
    assert not (bundle / "onnx/int8-cuda.onnx.data").exists()
    assert all(check.ok for check in Bundle.open(bundle).verify())


def change_weight(bundle, name, change):
    """Change a weight of fp32 in the bundle, as if the checkpoint had been another."""
    model = onnx.load(bundle / "onnx/fp32.onnx")
    (tensor,) = [item for item in model.graph.initializer if item.name == name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    with BundleTransaction(bundle) as transaction:
        onnx.save(model, transaction.stage("onnx/fp32.onnx"))
        record = transaction.record("onnx/fp32.onnx", stage="graph")
        transaction.commit(transaction.previous.merged(files={"onnx/fp32.onnx": record}))


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_an_overflow_is_traced_to_its_tensor(uncalibrated, photographs, precision):
    """Values that float16 cannot hold: which tensor, which value, on which image; the bundle stays."""
    change_weight(uncalibrated, "tower.blocks.1.mlp.down.weight", lambda values: values * np.float32(6e4))
    calibrate(uncalibrated, photographs, CalibrateOptions(num_images=6, threads=1))
    before = files_below(uncalibrated)
    with pytest.raises(
        QuantizationError, match=r"tower\.blocks\.1\.mlp\.down/MatMul reaches .* on images\[\d\]"
    ):
        quantize(uncalibrated, precision=precision, base="fp32", target="orin", name="half", threads=1)
    assert files_below(uncalibrated) == before


def test_weights_that_are_not_finite_are_refused(bundle):
    """The message names the weight; the bundle stays."""

    def spoil(values):
        values[0, 0] = np.nan
        return values

    change_weight(bundle, "projector.llm_projection.weight", spoil)
    before = files_below(bundle)
    with pytest.raises(QuantizationError, match=r"'projector\.llm_projection\.weight' holds 1 NaN"):
        quantize(bundle, threads=1)
    assert files_below(bundle) == before


@pytest.mark.parametrize("step", ["measure_stages", "_record", "_opset"])
def test_a_failure_leaves_the_bundle_as_it_was(unchanged, monkeypatch, step):
    """Wherever it happens: the half-made variant is gone."""

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_module, step, fail)
    with pytest.raises(KeyboardInterrupt):
        quantize(unchanged, threads=1)


def test_a_killed_run_leaves_the_bundle_as_it_was(bundle):
    """Killed while it measures: the bundle opens as before, and the next run works."""
    before = files_below(bundle)
    code = (
        "import os, sys, time\n"
        "from pargo_export.quantization import quantize as module\n"
        "def stop(*_, **__):\n"
        "    print('measuring', flush=True)\n"
        "    time.sleep(600)\n"
        "module.measure_stages = stop\n"
        "module.quantize(sys.argv[1], threads=1)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"measuring\n"
        process.send_signal(signal.SIGKILL)
    opened = Bundle.open(bundle)
    assert "int8-cpu" not in opened.manifest.variants
    assert all(files_below(bundle)[name] == content for name, content in before.items())
    assert quantize(bundle, threads=1).variant.evidence.passed
    leftover = set(files_below(bundle)) - set(before) - {"onnx/int8-cpu.onnx"}
    assert leftover == set()


def test_random_pixels_are_no_evidence(uncalibrated):
    """The note of the evidence says so."""
    options = CalibrateOptions(num_images=4, num_evaluation=1, allow_random=True, threads=1)
    calibrate(uncalibrated, "random", options)
    result = quantize(uncalibrated, allow_below=True, threads=1)
    assert any("random pixels: no evidence" in note for note in result.variant.evidence.notes)


def test_zero_activations_are_kept_in_float(uncalibrated, photographs):
    """A linear whose input was zero on every image has no scale, and the reason is in the manifest."""
    for name in ("weight", "bias"):
        change_weight(uncalibrated, f"tower.blocks.1.mlp.norm.{name}", np.zeros_like)
    calibrate(uncalibrated, photographs, CalibrateOptions(threads=1))
    result = quantize(uncalibrated, allow_below=True, threads=1)
    reason = "its input was zero on every calibration image"
    assert result.variant.quantization.kept["tower.blocks.1.mlp.down"] == reason
