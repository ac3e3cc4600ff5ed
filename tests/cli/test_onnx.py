from __future__ import annotations

import re

import pytest

from pargo_export.bundle import Bundle, Limits
from pargo_export.graph import parity
from pargo_export.rewrite.registry import REWRITES

FAST = ("--component", "projector")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the directory that the tests of this module export to."""
    return tmp_path_factory.mktemp("cli") / "bundle"


def test_options_reach_the_export(run_json, sample, bundle):
    """Every option has its effect, and the result is in the JSON."""
    result = run_json(
        "onnx",
        sample,
        "-o",
        bundle,
        *("--config", "tiny", *FAST, "--attention", "dense", "--precision", "fp16", "--target", "cuda"),
        *("--max-batch", 2, "--tiles", "1x2", "--opset", 21, "--preprocess", "resize", "--name", "mine"),
        *("--no-rewrite", "merge-qkv", "--no-rewrite", "merge-cross-kv"),
    )
    variant = result["variant"]
    expected = {
        "name": "mine",
        "component": "projector",
        "attention": "dense",
        "precision": "float16",
        "target": "cuda",
        "max_batch": 2,
        "opset": 21,
    }
    assert {name: variant[name] for name in expected} == expected
    assert not {"merge-qkv", "merge-cross-kv"} & set(variant["rewrites"])
    assert "drop-key-bias" in variant["rewrites"]
    assert {group["name"]: group["num_tensors"] for group in result["checkpoint"]["ignored"]}[
        "language model"
    ] == 3
    manifest = Bundle.open(bundle).manifest
    assert (manifest.model.tile_rows, manifest.model.tile_columns) == (1, 2)
    assert manifest.preprocessing.mode == "resize"
    assert variant["signature"]["inputs"][0]["shape"] == ["batch", 72, 64]


def test_output_for_people(run, sample, bundle):
    """The graph, its ends, its parity, the rewrites and what was left out, in 80 columns."""
    arguments = (
        "onnx",
        sample,
        "-o",
        bundle,
        *FAST,
        "--tiles",
        2,
        "--preprocess",
        "resize",
        "--rewrites",
        "merge-qkv,",
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("✓ fp32-projector exported to")
    text = "\n".join(lines[1:])
    assert re.search(r"^  rewrites  merge-qkv$", text, re.MULTILINE)
    assert re.search(r"^  left out  language model: 3 tensors, LoRA", text, re.MULTILINE)
    assert re.search(
        r"^  parity    max abs \S+e-0[5-7], cosine 1\.000000 in \d+ measurements$", text, re.MULTILINE
    )
    assert max(map(len, lines[1:])) <= 80
    assert run(*arguments).stdout.startswith("✓ fp32-projector is up to date in")


def test_another_model_needs_force(run, sample, bundle):
    """A bundle of other tiles is kept, with the mend in the message."""
    before = (bundle / "manifest.json").read_bytes()
    result = run("onnx", sample, "-o", bundle, *FAST)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert (bundle / "manifest.json").read_bytes() == before


def test_failed_parity_leaves_no_bundle(run, sample, tmp_path, monkeypatch):
    """A graph that does not compute what the reference computes is exit status 1 and nothing else."""
    monkeypatch.setitem(parity.PARITY_LIMITS, "float32", Limits(max_abs=1e-12))
    result = run("onnx", sample, "-o", tmp_path / "bundle", *FAST)
    assert result.exit_code == 1
    assert "does not compute what the reference computes" in result.stderr
    assert not Bundle.exists(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-rewrite", "nothing"), f"unknown rewrite nothing; known: {next(iter(REWRITES))}"),
        (("--opset", 99), "supported: 18 to 23"),
        (("--config", "tiny-qformer"), "contradict each other"),
        (("--input", "uint8", *FAST), "takes image features"),
        (("--photo", "nothing.jpg"), "nothing.jpg"),
    ],
)
def test_errors(run, sample, tmp_path, arguments, message):
    """What the library refuses is one line with the mend, and no bundle."""
    result = run("onnx", sample, "-o", tmp_path / "bundle", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Bundle.exists(tmp_path / "bundle")


@pytest.mark.parametrize(
    "arguments", [("--precision", "fp8"), ("--tiles", "x"), ("--max-batch", "0"), ("--target", "tpu")]
)
def test_usage_errors(run, sample, tmp_path, arguments):
    """A value that no export takes is a usage error."""
    assert run("onnx", sample, "-o", tmp_path / "bundle", *arguments).exit_code == 2
