from __future__ import annotations

import re

from PIL import Image

from pargo_export.bundle import Bundle
from pargo_export.model.sample import write_sample


def test_everything_is_shown(run, exported_bundle):
    """Model, variants with evidence and nodes, cost and files, in 80 columns."""
    result = run("inspect", exported_bundle)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines[1:])) <= 80
    for title in (
        "Model",
        "Variant bf16",
        "Variant external",
        "Variant fp32",
        "Cost of a run, batch 1",
        "Files",
    ):
        assert title in lines
    text = " ".join(result.stdout.split())
    for fact in (
        "18 partial tokens with windows of 2 image tokens, 4 global tokens",
        "84 x 84 pixels, 1 x 1 tiles, 36 image tokens",
        "pargo::PartialGlobalAttention 4",
        "parity passed, max abs",
        "bfloat16 was emulated",
        "321,120 parameters",
        Bundle.open(exported_bundle).manifest.files["onnx/fp32.onnx"].sha256[:16],
    ):
        assert fact in text, fact


def test_cost_table(run, exported_bundle):
    """Alike blocks share a line, and the reference stands beside the variant."""
    text = run("inspect", exported_bundle, "--variant", "fp32", "--batch", 2).stdout
    assert "Variant bf16" not in text
    assert re.search(r"^Cost of a run, batch 2$", text, re.MULTILINE)
    assert re.search(r"^  tower block 0-1, each +50,344 ", text, re.MULTILINE)
    assert re.search(r"^  total +321,120 ", text, re.MULTILINE)


def test_json(run_json, exported_bundle):
    """The whole summary is there, block by block."""
    result = run_json("inspect", exported_bundle)
    assert sorted(result["graphs"]) == ["bf16", "external", "fp32"]
    assert len(result["reference_cost"]["blocks"]) == 12


def test_masks(run, run_json, exported_bundle):
    """The masks are drawn as text, and nothing else."""
    lines = run("inspect", exported_bundle, "--masks").stdout.splitlines()
    assert lines[1].startswith("partial 0        ██··")
    assert run_json("inspect", exported_bundle, "--masks")["masks"] == lines


def test_pictures(run, exported_bundle, tmp_path):
    """Masks and windows are written as PNG files."""
    masks, windows = tmp_path / "masks.png", tmp_path / "windows.png"
    photo = tmp_path / "photo.png"
    Image.new("RGB", (20, 30)).save(photo)
    arguments = ("--masks-png", masks, "--windows-png", windows, "--photo", photo)
    assert run("inspect", exported_bundle, *arguments).exit_code == 0
    for path in (masks, windows):
        with Image.open(path) as picture:
            assert picture.format == "PNG"


def test_unwritable_picture(run, exported_bundle, tmp_path):
    """A picture that cannot be written is an error."""
    result = run("inspect", exported_bundle, "--masks-png", tmp_path / "nowhere" / "masks.png")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_other_projectors(run, tmp_path):
    """A linear projector has no masks to write, and is described in its own terms."""
    checkpoint = write_sample(tmp_path / "linear.safetensors", "tiny-linear")
    bundle = tmp_path / "bundle"
    assert run("onnx", checkpoint, "-o", bundle, "--component", "projector").exit_code == 0
    assert "linear, 4 image tokens make one visual token" in run("inspect", bundle).stdout
    result = run("inspect", bundle, "--masks-png", tmp_path / "masks.png")
    assert result.exit_code == 1
    assert "nothing to draw" in result.stderr


def test_unknown_variant(run, exported_bundle):
    """A variant that is not there is an error that lists those that are."""
    result = run("inspect", exported_bundle, "--variant", "int8")
    assert result.exit_code == 1
    assert "choose one of bf16, external, fp32" in result.stderr


def test_quantized_variants(run, quantized):
    """How each variant was quantized, what stayed in float and why, and what its calibration is worth."""
    result = run("inspect", quantized)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80
    parts = re.split(r"^(Variant \S+|Calibration \S+|Cost .*)$", result.stdout, flags=re.MULTILINE)
    text = {title: " ".join(body.split()) for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    facts = {
        "Variant int8-cpu": (
            "made from fp32, what is not quantized in float32",
            "dialect cpu: unsigned asymmetric activations, for integer units of CPUs",
            "quantized 35 of 36 linears, outliers smoothed in front of ",
            "calibration default: 6 observed, 2 kept for evaluation, 2 left out, from data of kind folder",
            "parity passed, mean cosine 0.99",
        ),
        "Variant int8-cuda": (
            "what is not quantized in float16",
            "dialect tensorrt: symmetric",
            "and 7 more: kept by '*.output'",
        ),
        "Variant int8-weight-only-cpu": ("recipe int8-weight-only dialect weights alone, symmetric",),
        "Variant int8-noise": ("random noise, no photographs: no evidence of accuracy",),
        "Calibration default": (
            "6 observed",
            "graph fp32, smoothing 1",
            "calibration/default.json and 2 more",
        ),
        "Calibration noise": ("4 observed, 1 kept for evaluation; random noise, no photographs",),
    }
    for title, expected in facts.items():
        for fact in expected:
            assert fact in text[title], fact
    assert "made from" not in text["Variant fp32"]
    assert "random" not in text["Variant int8-cpu"]
    digest = Bundle.open(quantized).manifest.calibrations["default"].dataset_sha256[:16]
    assert f"data sha256 {digest}, seed 0 " in text["Calibration default"]


def test_a_variant_alone_has_its_calibration(run, quantized):
    """Of one variant only its own calibration is shown."""
    text = run("inspect", quantized, "--variant", "int8-noise").stdout
    assert "\nCalibration noise\n" in text
    assert "\nCalibration default\n" not in text
    assert "\nCalibration" not in run("inspect", quantized, "--variant", "fp32").stdout
