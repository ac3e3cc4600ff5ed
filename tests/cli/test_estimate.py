from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pargo_export.cli.commands.estimate import PRECISIONS
from pargo_export.estimation import PRECISIONS as OF_THE_LIBRARY
from pargo_export.estimation import list_devices

FULL = "eva02-l-336-internlm2-7b"
README = Path(__file__).parents[2] / "README.md"


def test_one_estimate_by_block(run):
    """A range, what limits it, alike blocks on one line, and the word estimate over everything; in 80 columns."""
    result = run("estimate", FULL, "--device", "orin-nano-8")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles == ["Estimate (a prediction, nothing was run)", "Estimate by block", "About this estimate"]
    text = " ".join(result.stdout.split())
    for fact in (
        "orin-nano-8 fp16 1 66.1 - 108 82.8 compute 1.46 GB",
        "tower block 0-22, each",
        "query layer 1-3, each",
        "output norm 0 - -",
        "Jetson Orin Nano 8 GB, 15 W (GPU 625 MHz); at least 7.13 GB are left for the language model",
        "not in it decoding, preprocessing, copies",
    ):
        assert fact in text, fact


def test_several_are_compared(run):
    """Every device with every precision and batch, a line each, and no blocks."""
    result = run("estimate", "tiny", "--device", "thor,l4", "--precision", "fp16,fp8", "--batch", "1,8")
    assert result.exit_code == 0, result.output
    rows = [line.split()[:3] for line in result.stdout.splitlines() if line.startswith(("  thor ", "  l4 "))]
    expected = [
        [name, how, batch] for name in ("thor", "l4") for how in ("fp16", "fp8") for batch in ("1", "8")
    ]
    assert rows[:8] == expected
    assert "by block" not in result.stdout
    assert "only times of other devices" in " ".join(result.stdout.split())


def test_what_does_not_fit(run):
    """It is marked in the table, and said with what to do."""
    text = " ".join(run("estimate", FULL, "--device", "orin-nano-8", "--batch", "600").stdout.split())
    assert "(!)" in text
    assert "does not fit batch 600 needs about" in text


def test_json(run_json, exported_bundle):
    """The estimates of a bundle as data; the variant of that precision counts."""
    found = run_json("estimate", exported_bundle, "--device", "thor", "--precision", "bf16,fp16")
    assert found["kind"] == "estimate"
    assert [item["variant"] for item in found["estimates"]] == ["bf16", None]
    time = found["estimates"][0]["time"]
    assert 0 < time["low_ms"] < time["central_ms"] < time["high_ms"]


def test_the_device_table(run, run_json):
    """All devices, without a source of anything to estimate."""
    result = run("estimate", "--device", "list")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    names = [device.name for device in list_devices()]
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == names
    assert [device["name"] for device in run_json("estimate", "--device", "list")] == names


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["tiny"], 2, "Missing option '--device'"),
        (["--device", "thor"], 2, "Missing argument 'SOURCE'"),
        (["tiny", "--device", "thor", "--precision", "fp16,int4"], 2, "found int4; choose from fp32, fp16"),
        (["tiny", "--device", "thor", "--batch", "0"], 2, "expected numbers of images"),
        (["tiny", "--device", "thor", "--batch", "x"], 2, "expected numbers of images"),
        (["tiny", "--device", "tor"], 1, "error: unknown device 'tor'; did you mean thor? The devices are"),
        (
            ["tiny", "--device", "orin-nano-8", "--precision", "fp8"],
            1,
            "has no fp8: its compute capability is 8.7",
        ),
        (["nowhere", "--device", "thor"], 1, "no such bundle or file, and no preset"),
    ],
)
def test_mistakes(run, arguments, status, message):
    """One line says what was found and what to do."""
    result = run("estimate", *arguments)
    assert result.exit_code == status
    assert message in " ".join(result.stderr.split())


def test_precisions_are_those_of_the_library():
    """They are written out in the command, so that --help imports nothing."""
    assert PRECISIONS == OF_THE_LIBRARY


def test_the_example_of_the_readme_has_an_answer(run):
    """Not every device has a figure for every precision."""
    lines = [line.strip() for line in README.read_text("utf-8").splitlines()]
    (example,) = [line for line in lines if line.startswith("pargo-export estimate ")]
    result = run(*shlex.split(example)[1:])
    assert result.exit_code == 0, result.output
