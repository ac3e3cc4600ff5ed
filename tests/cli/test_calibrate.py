from __future__ import annotations

import re

import pytest

import pargo_export
from pargo_export import CalibrateOptions, CalibrationResult
from pargo_export.bundle import Bundle
from pargo_export.errors import CalibrationError


def _capture(monkeypatch):
    """Replace the library by something that keeps its arguments and stops there."""
    calls = []

    def calibrate(*arguments, **options):
        calls.append((*arguments, options))
        raise CalibrationError("stopped here")

    monkeypatch.setattr(pargo_export, "calibrate", calibrate)
    return calls


def test_defaults_are_those_of_the_library(run, monkeypatch):
    """Without options the library gets its own defaults."""
    calls = _capture(monkeypatch)
    assert "stopped here" in run("calibrate", "somewhere", "--data", "photos").stderr
    ((_, data, options, others),) = calls
    assert (data, options, others["force"]) == ("photos", CalibrateOptions(), False)


def test_options_reach_the_library(run, monkeypatch):
    """Every option arrives in its field."""
    calls = _capture(monkeypatch)
    run(
        *(
            "calibrate",
            "somewhere",
            "--data",
            "random",
            "--images",
            50,
            "--evaluation-images",
            5,
            "--seed",
            7,
        ),
        *("--shard", "2/3", "--smoothing", 0.25, "--name", "mine", "--variant", "fp32", "--allow-random"),
        *("--threads", 2, "--force"),
    )
    ((bundle, data, options, others),) = calls
    assert (str(bundle), data, others["force"]) == ("somewhere", "random", True)
    assert options == CalibrateOptions(
        num_images=50,
        num_evaluation=5,
        seed=7,
        shard=(2, 3),
        smoothing=0.25,
        name="mine",
        variant="fp32",
        allow_random=True,
        threads=2,
    )


def test_output_for_people(run, bundle_to_quantize, photos):
    """What was observed, kept and left out with the reasons, and the files, in 80 columns."""
    result = run(
        "calibrate", bundle_to_quantize, "--data", photos, "--name", "mine", "--evaluation-images", 2
    )
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("✓ calibration mine written to")
    assert max(map(len, lines)) <= 80
    text = " ".join(result.stdout.split())
    for fact in (
        "6 observed, 2 kept for evaluation, 2 left out, from data of kind folder",
        "left out broken.jpg: ",
        "the same content as ",
        "graph fp32, smoothing 1",
        "file calibration/mine.json, ",
    ):
        assert fact in text, fact
    digest = Bundle.open(bundle_to_quantize).manifest.calibrations["mine"].dataset_sha256
    assert f"sha256 {digest[:16]}, seed 0" in text
    assert "resumed" not in text
    assert " more, listed in" not in text


def test_a_resumed_run_says_so(run, calibrated, monkeypatch):
    """Images that an interrupted run had observed are counted."""
    bundle = Bundle.open(calibrated)
    result = CalibrationResult(bundle, bundle.manifest.calibrations["default"], (), resumed=3)
    monkeypatch.setattr(pargo_export, "calibrate", lambda *_, **__: result)
    assert "  resumed  3 images were observed before" in run("calibrate", calibrated, "--data", "x").stdout


def test_long_lists_are_cut(run, bundle_to_quantize, photos, tmp_path):
    """Of many unusable images three are shown, the rest is counted."""
    for path in photos.glob("*-*.png"):
        (tmp_path / path.name).symlink_to(path)
    for index in range(5):
        (tmp_path / f"broken-{index}.png").write_bytes(bytes([index]))
    result = run("calibrate", bundle_to_quantize, "--data", tmp_path, "--name", "mine")
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^  left out +broken", result.stdout, re.MULTILINE)) == 3
    assert "and 2 more, listed in calibration/mine.json" in result.stdout


def test_json(run_json, bundle_to_quantize, photos):
    """The calibration as the manifest has it, and every image left out."""
    result = run_json("calibrate", bundle_to_quantize, "--data", photos, "--name", "mine")
    found = Bundle.open(bundle_to_quantize).manifest.calibrations["mine"]
    assert result["calibration"] == found.model_dump(mode="json")
    assert min(item["image"] for item in result["skipped"]) == "broken.jpg"
    assert len(result["skipped"]) == 2
    assert result["resumed"] == 0


def test_random_data_is_labelled(run, bundle_to_quantize):
    """Noise is refused unless asked for, and then the output says what it is worth."""
    arguments = ("calibrate", bundle_to_quantize, "--data", "random", "--name", "mine", "--images", 4)
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "--allow-random" in refused.stderr
    assert "mine" not in Bundle.open(bundle_to_quantize).manifest.calibrations
    accepted = run(*arguments, "--allow-random", "--evaluation-images", 1)
    assert accepted.exit_code == 0, accepted.output
    assert "random noise, no photographs: no evidence of accuracy" in " ".join(accepted.stdout.split())


def test_progress_is_shown_with_verbose(run, bundle_to_quantize, photos):
    """With -v the images are counted on standard error."""
    result = run("calibrate", bundle_to_quantize, "--data", photos, "--name", "mine", "--images", 4, "-v")
    assert re.search(r"s  observing activations: \d of \d$", result.stderr, re.MULTILINE)
    assert "observing" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--data", "x", "--images", 0),
        ("--data", "x", "--shard", "3/3"),
        ("--data", "x", "--smoothing", 2),
    ],
)
def test_usage_errors(run, arguments):
    """Missing data and numbers that no calibration takes are usage errors."""
    assert run("calibrate", "somewhere", *arguments).exit_code == 2


def test_taken_name(run, calibrated, photos):
    """A calibration of that name is kept, with the mend."""
    result = run("calibrate", calibrated, "--data", photos)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert result.stderr.count("\n") == 1
