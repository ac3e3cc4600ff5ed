from __future__ import annotations

from golden_cases import golden_case


def test_results(run, exported_bundle):
    """Every check is a line with a mark, and the last line counts them."""
    result = run("verify", exported_bundle, "--variant", "fp32")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("✓ manifest.json")
    assert sum(line.startswith("✓") for line in lines) == 12
    assert result.stdout.replace("\n", "").endswith("bundle: 12 checks passed")


def test_checkpoint(run_json, exported_bundle):
    """With a checkpoint the weights and the parity are checked as well."""
    case = golden_case("pargo_w2")
    arguments = ("--checkpoint", case.checkpoint, "--config", case.config, "--variant", "external")
    result = run_json("verify", exported_bundle, *arguments)
    assert result["passed"] is True
    assert [check["name"] for check in result["checks"]][-2:] == ["checkpoint: weights", "external: parity"]


def test_failure(run, bundle_to_edit):
    """A check that does not pass is marked, explained and counted, and the exit status is 1."""
    (bundle_to_edit / "onnx/external.onnx.data").unlink()
    result = run("verify", bundle_to_edit)
    assert result.exit_code == 1
    assert "✗ onnx/external.onnx.data" in result.stdout
    assert "of 26 checks failed" in result.stdout.replace("\n", " ")
    as_json = run("verify", bundle_to_edit, "--json")
    assert as_json.exit_code == 1
    assert '"passed": false' in as_json.stdout


def test_backend(run_json, exported_bundle):
    """A backend of this machine is checked as well, behind everything else."""
    result = run_json("verify", exported_bundle, "--variant", "fp32", "--backend", "openvino")
    assert result["passed"] is True
    assert result["checks"][-1]["name"] == "fp32: openvino"
    assert "against fp32 in onnxruntime" in result["checks"][-1]["detail"]


def test_backend_that_cannot_run(run, exported_bundle):
    """Nothing to run is a failure, not silence."""
    result = run("verify", exported_bundle, "--variant", "external", "--backend", "cuda")
    assert result.exit_code == 1
    assert "it can run nothing here" in result.stdout.replace("\n", " ")


def test_an_engine_needs_a_backend_and_has_to_be_there(run, exported_bundle):
    """An engine runs on a backend for engines; an unknown one is an error with what there is."""
    result = run("verify", exported_bundle, "--engine", "fp16-sm87")
    assert result.exit_code == 2
    assert "--engine needs --backend tensorrt" in result.output
    result = run("verify", exported_bundle, "--backend", "tensorrt", "--engine", "fp16-sm87")
    assert result.exit_code == 1
    assert "there is no engine 'fp16-sm87'" in " ".join(result.output.split())
