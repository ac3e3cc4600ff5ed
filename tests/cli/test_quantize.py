from __future__ import annotations

import re

import pytest

from pargo_calibration import list_recipes
from pargo_export import QuantizeOptions
from pargo_export.bundle import Bundle, Limits
from pargo_export.errors import QuantizationError
from pargo_export.quantization.budget import BudgetStep
from pargo_export.quantization.quantize import QuantizeResult
from pargo_export.quantization.sensitivity import Sensitivity


def _capture(monkeypatch):
    """Replace the library by something that keeps its arguments and stops there."""
    calls = []

    def quantize(*arguments, **options):
        calls.append((*arguments, options))
        raise QuantizationError("stopped here")

    monkeypatch.setattr("pargo_export.quantize", quantize)
    return calls


@pytest.mark.parametrize(
    ("flag", "precision"),
    [
        ("--int8", "int8"),
        ("--int8-weight-only", "int8_weight_only"),
        ("--fp16", "float16"),
        ("--bf16", "bfloat16"),
    ],
)
def test_defaults_are_those_of_the_library(run, monkeypatch, flag, precision):
    """A precision alone leaves everything else to the library."""
    calls = _capture(monkeypatch)
    assert "stopped here" in run("quantize", "somewhere", flag).stderr
    ((bundle, options, others),) = calls
    assert str(bundle) == "somewhere"
    assert options == QuantizeOptions(precision=precision)
    assert (others["budget"], others["score"], others["force"]) == (None, None, False)


def test_options_reach_the_library(run, monkeypatch):
    """Every option arrives in its field, in the words of the library."""
    calls = _capture(monkeypatch)
    run(
        *("quantize", "somewhere", "--fp8", "--target", "thor", "--recipe", "mine.toml", "--name", "mine"),
        *("--calibration", "photos", "--base", "fp32", "--float-precision", "bf16", "--keep", "tower.*"),
        *("--keep", "projector.*", "--budget", "score=3", "--scorer", "math:fsum", "--allow-below"),
        *(
            "--limit",
            "cosine=0.9",
            "--limit",
            "worst_cosine=.8",
            "--limit",
            "sqnr=10",
            "--limit",
            "max_abs=2",
        ),
        *("--threads", 2, "--force"),
    )
    ((_, options, others),) = calls
    assert options == QuantizeOptions(
        precision="fp8",
        target="thor",
        recipe="mine.toml",
        calibration="photos",
        base="fp32",
        float_precision="bfloat16",
        keep=("tower.*", "projector.*"),
        limits=Limits(mean_cosine=0.9, cosine=0.8, sqnr_db=10, max_abs=2),
        allow_below=True,
        name="mine",
        threads=2,
    )
    assert (others["budget"], others["score"]([1, 2]), others["force"]) == ("score=3", 3.0, True)


def test_output_for_people(run, bundle_to_quantize):
    """What was quantized and what not with the reason, sizes, and the accuracy of every stage, in 80 columns."""
    result = run("quantize", bundle_to_quantize, "--int8", "--keep", "projector.llm_projection")
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("✓ int8-cpu written to")
    assert max(map(len, lines)) <= 80
    text = " ".join(result.stdout.split())
    for fact in (
        "made from fp32, what is not quantized in float32",
        "recipe int8",
        "dialect cpu: unsigned asymmetric activations, for integer units of CPUs",
        "quantized 34 of 36 linears, outliers smoothed in front of ",
        "kept in float tower.patch_embedding: It reads pixels",
        "kept in float projector.llm_projection: kept by 'projector.llm_projection'",
        "calibration default: 6 observed, 2 kept for evaluation, 2 left out",
    ):
        assert fact in text, fact
    evidence = Bundle.open(bundle_to_quantize).variant("int8-cpu").evidence
    assert f"against {evidence.reference}" in text
    for stage in {item.stage for item in evidence.stages}:
        ratio = min(item.sqnr_db for item in evidence.stages if item.stage == stage)
        assert re.search(rf"^  {stage} +\S+ +\S+ +{ratio:.1f} +\S+$", result.stdout, re.MULTILINE)
    before, after = re.search(
        r"^  size +(\d+\.\d+ MB|\d+ kB) -> (\d+) kB$", result.stdout, re.MULTILINE
    ).groups()
    assert float(after) < 1000 * float(before.split()[0])
    assert "Budget" not in text
    again = run("quantize", bundle_to_quantize, "--int8", "--keep", "projector.llm_projection")
    assert again.stdout.startswith("✓ int8-cpu is up to date in")


def test_json(run_json, bundle_to_quantize):
    """The variant as the manifest has it, and both sizes."""
    result = run_json("quantize", bundle_to_quantize, "--int8-weight-only", "--target", "rtx")
    manifest = Bundle.open(bundle_to_quantize).manifest
    variant = manifest.variants["int8-weight-only-rtx"]
    assert result["variant"] == variant.model_dump(mode="json")
    assert result["size_bytes"]["variant"] == manifest.files[variant.graph].size_bytes
    assert result["size_bytes"]["base"] == manifest.files["onnx/fp32.onnx"].size_bytes
    assert (result["reused"], result["sensitivities"], result["budget"]) == (False, [], [])


def test_budget(run, quantized, bundle_to_quantize):
    """The path that the budget took and the sensitivities stand in the output."""
    evidence = Bundle.open(quantized).variant("int8-cpu").evidence
    ratio = min(item.sqnr_db for item in evidence.stages if item.stage == "visual_tokens")
    budget = f"sqnr={ratio + 1:.3f}"
    result = run("quantize", bundle_to_quantize, "--int8", "--budget", budget, "-v")
    assert result.exit_code == 0, result.output
    assert re.search(r"s  measuring the sensitivity of the blocks: \d+ of \d+$", result.stderr, re.MULTILINE)
    assert f"\nBudget {budget}, the graphs tried in order\n" in result.stdout
    assert re.search(rf"^  0 +{ratio:.6g} +missed$", result.stdout, re.MULTILINE)
    assert re.search(r"^  [1-9] +\S+ +holds$", result.stdout, re.MULTILINE)
    assert "kept in float" in result.stdout
    assert "budget: block" in " ".join(result.stdout.split())
    assert re.search(r"^  tower\.blocks\.0( +\S+){4}$", result.stdout, re.MULTILINE)


def test_budget_json(run_json, monkeypatch, quantized):
    """Steps and sensitivities are in the JSON, number by number."""
    bundle = Bundle.open(quantized)
    sensitivity = Sensitivity(0.9, 0.8, 20.0, 0.5, "cat.png", "tower.blocks.0", ("tower.blocks.0.mlp.down",))
    steps = (BudgetStep((), 0.9, holds=False), BudgetStep(("tower.blocks.0",), 0.99, holds=True))
    result = QuantizeResult(bundle, bundle.variant("int8-cpu"), False, (sensitivity,), steps)
    monkeypatch.setattr("pargo_export.quantize", lambda *_, **__: result)
    values = run_json("quantize", quantized, "--int8", "--budget", "cosine=0.95")
    assert [(step["kept"], step["value"], step["holds"]) for step in values["budget"]] == [
        ([], 0.9, False),
        (["tower.blocks.0"], 0.99, True),
    ]
    (found,) = values["sensitivities"]
    assert (found["name"], found["sqnr_db"], found["worst_image"]) == ("tower.blocks.0", 20.0, "cat.png")


def test_sensitivity(run, calibrated):
    """Blocks, the worst first, then the depth curve in the order of the network; nothing is written."""
    before = (calibrated / "manifest.json").read_bytes()
    result = run(
        *("quantize", calibrated, "--int8", "--sensitivity", "block", "--threshold", 1, "--keep", "tower.*"),
        "-v",
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"s  quantizing one block at a time: 3 of 6$", result.stderr, re.MULTILINE)
    ratios, depth = result.stdout.split("Depth: everything quantized")
    found = [float(line.split()[3]) for line in ratios.splitlines() if line.startswith("  projector")]
    assert len(found) == 6
    assert found == sorted(found)
    assert re.findall(r"^  (tower|projector)\.\w+\.(\d) +[01]\.", depth, re.MULTILINE) == [
        *(("tower", str(index)) for index in range(3)),
        *(("projector", str(index)) for index in range(4)),
    ]
    assert "  projector.layers.0 is the first with a mean cosine below 1\n" in depth
    assert (calibrated / "manifest.json").read_bytes() == before


def test_sensitivity_json(run_json, calibrated):
    """Per linear; with a threshold that nothing misses, nothing is named."""
    arguments = ("--int8", "--sensitivity", "linear", "--threshold", 0)
    keep = [word for part in ("tower.*", "projector.layers.*") for word in ("--keep", part)]
    values = run_json("quantize", calibrated, *arguments, *keep)
    names = {item["name"] for item in values["sensitivities"]}
    assert names == {"projector.context.merged", "projector.llm_projection"}
    assert (values["first_past"], values["threshold"]) == (None, 0)
    assert [item["block"] for item in values["depth"]][-1] == "projector.layers.3"
    assert values["kept"]["tower.blocks.0.mlp.down"] == "kept by 'tower.*'"


def test_missed_limits(run, bundle_to_quantize):
    """A variant below its limits is one red line and no variant; if allowed it is written, and marked."""
    arguments = ("quantize", bundle_to_quantize, "--int8", "--limit", "sqnr=150")
    refused = run(*arguments)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--allow-below" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "int8-cpu" not in Bundle.open(bundle_to_quantize).manifest.variants
    allowed = run(*arguments, "--allow-below")
    assert allowed.exit_code == 0, allowed.output
    assert allowed.stdout.startswith("✗ int8-cpu written to")
    assert "calibrated, below its accuracy limits made from" in " ".join(allowed.stdout.split())


def test_recipes_are_listed(run, run_json):
    """Every recipe is listed with what it is for; no bundle is needed."""
    result = run("quantize", "--list-recipes")
    for name in list_recipes():
        assert re.search(rf"^  {name}  +\w+  +\S", result.stdout, re.MULTILINE)
    values = run_json("quantize", "--list-recipes")
    assert tuple(values) == list_recipes()
    assert values["int8"]["smooth"] == {"alpha": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("b",), "no precision is given; choose one of --int8, --int8-weight-only, --fp8"),
        (("b", "--int8", "--fp8"), "found --int8 and --fp8; choose one"),
        (("--int8",), "Missing argument 'BUNDLE'"),
        (("b", "--int8", "--scorer", "math:fsum"), "--scorer needs --budget score=X"),
        (("b", "--int8", "--limit", "ssim=1"), "expected cosine=X, worst_cosine=X, sqnr=X, max_abs=X"),
        (("b", "--int8", "--limit", "cosine"), "found 'cosine'"),
        (("b", "--int8", "--limit", "cosine=1", "--limit", "cosine=2"), "cosine is given twice"),
        (("b", "--int8", "--target", "tpu"), "'tpu' is not one of"),
        (("b", "--int8", "--sensitivity", "layer"), "'layer' is not one of"),
    ],
)
def test_usage_errors(run, arguments, message):
    """What cannot be meant is a usage error that says what can."""
    result = run("quantize", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fp8",), "no CPU backend has FP8 products"),
        (("--int8", "--recipe", "nothing"), "choose one of fp8, int8"),
        (("--int8", "--recipe", "fp8"), "is for fp8, but int8 was asked for"),
        (("--int8", "--calibration", "mine"), "no calibration 'mine' (it has: default, noise)"),
        (("--int8", "--keep", "nothing"), "keep names nothing"),
        (("--int8", "--budget", "cosine"), "expected METRIC=NUMBER"),
        (("--int8", "--budget", "score=1", "--scorer", "math"), "expected package.module:function"),
        (("--fp16", "--recipe", "int8"), "quantizes nothing"),
    ],
)
def test_errors(run, calibrated, arguments, message):
    """What the library refuses is one line with the mend, and the bundle stays as it was."""
    before = (calibrated / "manifest.json").read_bytes()
    result = run("quantize", calibrated, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert (calibrated / "manifest.json").read_bytes() == before
