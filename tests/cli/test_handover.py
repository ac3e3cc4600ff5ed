from __future__ import annotations

import pytest


@pytest.fixture
def bundle(exported_bundle):
    """The bundle with the variants fp32, bf16 and external, which has no engine."""
    return exported_bundle


def test_result(run, bundle, tmp_path):
    """What was written is listed with sizes, and the notes are shown."""
    result = run("handover", bundle, "--format", "triton", "--variant", "external", "-o", tmp_path / "models")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    heading = " ".join(result.stdout.split())  # a long path wraps the line
    assert heading.startswith(f"{tmp_path / 'models'}: variant external for triton")
    names = [line.split()[0] for line in lines if line.endswith(("B", "kB", "MB"))]
    assert names == [
        "README.md",
        "external/1/external.onnx.data",
        "external/1/model.onnx",
        "external/config.pbtxt",
        "handover.json",
    ]
    assert "note: the graph is served by the ONNX Runtime backend" in lines
    assert lines[-1] == "How to use it is in README.md."


def test_json_and_force(run, run_json, bundle, tmp_path):
    """The result for machines; a second time only with --force."""
    arguments = ("handover", bundle, "--format", "triton", "--variant", "fp32", "-o", tmp_path / "models")
    choices = ("--name", "pargo", "--instances", 2, "--no-warmup")
    result = run_json(*arguments, *choices)
    assert result["files"] == ["README.md", "handover.json", "pargo/1/model.onnx", "pargo/config.pbtxt"]
    assert (result["format"], result["variant"], result["engine"]) == ("triton", "fp32", None)
    configuration = (tmp_path / "models/pargo/config.pbtxt").read_text()
    assert "count: 2" in configuration
    assert "model_warmup" not in configuration
    again = run(*arguments)
    assert again.exit_code == 1
    assert "replace it with --force" in again.stderr.replace("\n", " ")
    assert run_json(*arguments, "--force")["files"][-1] == "handover.json"


@pytest.mark.parametrize(
    ("format_", "found"),
    [("ep-context", "0 engines, one is needed"), ("polygraphy", "names no calibration")],
)
def test_what_the_bundle_has_not(run, bundle, tmp_path, format_, found):
    """Without an engine, or without evaluation images, it says what to do."""
    choice = () if format_ == "ep-context" else ("--variant", "fp32")
    result = run("handover", bundle, "--format", format_, *choice, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert found in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("polygraphy", ("--engine", "a")),
        ("ep-context", ("--name", "a")),
        ("polygraphy", ("--instances", "2")),
        ("ep-context", ("--no-warmup",)),
        ("triton", ("--embed",)),
        ("triton", ("--calibration", "a")),
    ],
)
def test_options_of_another_format(run, bundle, tmp_path, format_, options):
    """An option that the format has no use for is refused, not ignored."""
    result = run("handover", bundle, "--format", format_, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert f"{options[0]} means nothing for --format {format_}" in result.stderr
