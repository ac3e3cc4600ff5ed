from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from pargo_export.bench import read_result, write_result
from pargo_export.cli.main import cli

QUICK = ("--backend", "onnxruntime", "--batch", "1", "--iterations", "5", "--rounds", "5", "--warmup", "1")


@pytest.fixture(scope="module")
def measured(exported_bundle, tmp_path_factory):
    """Return a result, by the command, and what it printed."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    arguments = ("bench", exported_bundle, *QUICK, "--load", "50", "--deadline", "5s", "-o", path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        found = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return path, found.stdout


def test_what_is_printed(measured):
    """Gate, times with boundary and clock, load, memory and energy or why not; in 80 columns."""
    _, text = measured
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line and not line.startswith((" ", "fp32 in"))] == [
        "Subjects",
        "Batch 1, milliseconds",
        "fp32 on onnxruntime: poisson arrivals, deadline 5000 ms",
        "Memory and energy",
        "About these numbers",
    ]
    joined = " ".join(text.split())
    for fact in (
        "✓ fp32 on onnxruntime: max abs 0",
        "fp32 on onnxruntime boundary clock median 95 % interval p99 images/s runs",
        "latency from the planned arrival, decoding included; host clock",
        "peak RSS",
        "device stages not available:",
        "5 runs of each in 5 rounds, 8 pictures",
    ):
        assert fact in joined, fact
    for boundary in ("preprocess", "run", "end_to_end"):
        (row,) = [line.split() for line in lines if line.split()[:2] == [boundary, "host"]]
        assert row[-1] == "5"
        assert float(row[2]) > 0


def test_the_file(measured, exported_bundle):
    """The file has everything, samples included, and says how it was made."""
    result = read_result(measured[0])
    assert [subject.name for subject in result.subjects] == ["fp32 on onnxruntime"]
    assert result.subjects[0].evidence.passed
    assert {item.boundary for item in result.measurements} == {"preprocess", "run", "end_to_end"}
    assert all(
        len(item.samples_ms) == 5 and set(item.rounds) == set(range(5)) for item in result.measurements
    )
    assert result.settings.batches == (1,)
    assert result.bundle.path == str(exported_bundle)
    assert len(result.bundle.manifest_sha256) == 64
    assert result.inputs.num_pictures == 8
    assert result.loads[0].points[0].offered_per_s > 0
    assert result.settings.command.startswith(f"pargo-export bench {exported_bundle} ")
    energies = [item.energy for item in result.measurements]
    assert all(energies) or result.unavailable["energy"]


@pytest.fixture
def compare(measured, exported_bundle, run, tmp_path, monkeypatch):
    """Return a function that compares the result, as if it had just been measured, with one that differs from it."""
    result = read_result(measured[0]).model_copy(update={"other_load": 0.0})
    monkeypatch.setattr("pargo_export.bench.benchmark", lambda *_, **__: result)

    def run_and_compare(*arguments, **changes):
        path = write_result(result.model_copy(update=changes), tmp_path / "old.json")
        return run("bench", exported_bundle, "--compare", path, *arguments)

    return run_and_compare


def test_a_regression_fails(measured, compare):
    """Beside an earlier result with times a thousandth as long, everything is a proven regression: status 1."""
    faster = tuple(
        item.model_copy(update={"samples_ms": tuple(value / 1000 for value in item.samples_ms)})
        for item in read_result(measured[0]).measurements
    )
    found = compare("--fail-above", "5%", "--json", measurements=faster)
    assert found.exit_code == 1, found.output
    values = json.loads(found.stdout)
    assert values["kind"] == "pargo-export benchmark"
    assert {item["status"] for item in values["regressions"]["changes"]} == {"regression"}
    text = compare(measurements=faster).stdout
    assert "Beside the earlier result (allowed: +5.0%)" in text
    assert text.splitlines()[-1] == "✗ 3 proven regression(s), 0 suspected"
    assert max(map(len, text.splitlines())) <= 80


def test_no_regression(compare):
    """Beside itself nothing became slower: status 0."""
    found = compare("--fail-above", "0.1%")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "✓ nothing became slower than allowed"


def test_results_that_cannot_be_compared(measured, compare):
    """What was measured is printed all the same; then the error says why."""
    bundle = read_result(measured[0]).bundle.model_copy(update={"num_parameters": 1})
    found = compare(bundle=bundle)
    assert found.exit_code == 1
    assert "Batch 1, milliseconds" in found.stdout
    assert "different models" in found.stderr


def test_a_failure_fails(measured, run, monkeypatch):
    """A subject that failed is marked, and the status is 1."""
    result = read_result(measured[0])
    failed = result.subjects[0].model_copy(update={"failure": "its output misses the limits"})
    broken = result.model_copy(update={"subjects": (failed,), "measurements": (), "loads": ()})
    monkeypatch.setattr("pargo_export.bench.benchmark", lambda *_, **__: broken)
    found = run("bench", "bundle")
    assert found.exit_code == 1
    assert "✗ fp32 on onnxruntime: its output misses the limits" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--fail-above", "5%"), 2, "give --compare OLD.json too"),
        (("--duration", "soon"), 2, "expected a duration"),
        (("--batch", "64"), 1, "was made for at most 4 images"),
        (("--output", "nowhere/result.json"), 1, "its directory does not exist"),
        (("--compare", "missing.json"), 1, "cannot be read"),
        (("--baseline", "torch"), 1, "give the checkpoint"),
        (("--deadline", "5ms"), 1, "give load too"),
    ],
)
def test_mistakes_are_told_before_the_work(exported_bundle, run, arguments, status, message):
    """Nothing is loaded before the options make sense."""
    found = run("bench", exported_bundle, "--backend", "onnxruntime", *arguments)
    assert found.exit_code == status
    assert message in " ".join(found.stderr.split())
    assert found.stdout == ""
