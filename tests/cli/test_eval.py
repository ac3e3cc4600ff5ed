"""`pargo-export eval mme`, through a language model, and on answers that exist already."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from golden_cases import GOLDEN
from language_models import tiny_llama
from mme_case import TASKS, write_data

from pargo_export.evaluation.mme import score_results
from pargo_export.evaluation.mme.result_file import read_evaluation

ANSWERS = GOLDEN / "mme"


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Return folders: of the data, and of a language model."""
    return write_data(tmp_path_factory.mktemp("mme") / "data", TASKS), tiny_llama(tmp_path_factory)


def test_variants_are_evaluated_through_a_language_model(run, run_json, exported_bundle, answered, tmp_path):
    """Answers, scores, comparison, record and page; with --resume nothing is asked again."""
    data, llm = answered
    words = ("eval", "mme", exported_bundle, "--llm", llm, "--data", data, "--limit", "2", "--beams", "1")
    words += ("--max-new-tokens", "3", "--variants", "fp32,bf16@emulated", "--threads", "1")
    words += ("--results", tmp_path / "results", "--token-images", "1", "-o", tmp_path / "found.json")
    found = run_json(*words, "--html", tmp_path / "page.html")
    assert [item["name"] for item in found["variants"]] == ["fp32", "bf16@emulated"]
    assert found["data"]["tasks"] == dict.fromkeys(TASKS, 2)
    assert found["settings"]["command"].startswith("pargo-export eval mme ")
    assert found["language_model"]["settings"]["num_beams"] == 1
    assert read_evaluation(tmp_path / "found.json").model_dump(mode="json") == found
    assert "bf16@emulated beside fp32" in (tmp_path / "page.html").read_text()
    scored = score_results(tmp_path / "results" / "fp32")
    assert scored.total_with_additional == found["variants"][0]["scores"]["total_with_additional"]

    refused = run(*words)
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    again = run(*words, "--resume")
    assert again.exit_code == 0
    assert "3 task(s) of an earlier run" in " ".join(again.stdout.split())
    assert "bf16@emulated beside fp32" in again.stdout


def test_answers_that_exist_are_scored(run, run_json):
    """The numbers are those of the official calculator; people get a table of 80 columns."""
    found = run_json("eval", "mme", "--score-only", ANSWERS, "--strict-official")
    expected = json.loads((ANSWERS / "mme_expected.json").read_text())
    groups = found["variants"][0]["scores"]["groups"]
    for name, group in expected.items():
        assert groups[name]["total"] == pytest.approx(group["total"], abs=1e-9)
    assert found["variants"][0]["scores"]["strict_official"] is True
    shown = run("eval", "mme", "--score-only", ANSWERS)
    assert shown.exit_code == 0
    assert "Perception total       1012.78" in shown.stdout
    assert "landmark, code_reasoning" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_two_folders_of_answers_are_compared(run, tmp_path):
    """Flips, McNemar and the interval, without a bundle."""
    for path in ANSWERS.glob("*.txt"):
        (tmp_path / path.name).write_text(path.read_text().replace("\tnO\n", "\tyEs\n"))
    shown = run("eval", "mme", "--score-only", tmp_path, "--baseline", ANSWERS)
    assert shown.exit_code == 0
    words = " ".join(shown.stdout.split())
    assert "significantly worse" in words
    assert "1 gained, 9 lost; McNemar p 0.021" in words
    assert "95% interval" in words
    assert "and 4 more" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing BUNDLE, --llm, --data; or give --score-only"),
        (("bundle", "--bundle", "bundle"), "found BUNDLE and --bundle"),
        (("--score-only", ".", "--llm", "llm"), "--llm has no meaning with --score-only"),
        (("bundle", "--llm", "x", "--data", "x", "--strict-official"), "--strict-official is about answers"),
    ],
)
def test_options_that_contradict_each_other(run, words, message):
    """They are a usage error that says which."""
    result = run("eval", "mme", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_what_is_missing_is_found_before_the_work(run, tmp_path):
    """A place that cannot be written, and data that are not there."""
    failed = run("eval", "mme", "--score-only", ANSWERS, "-o", tmp_path / "no" / "x.json")
    assert failed.exit_code == 1
    assert "its directory does not exist" in failed.stderr
    failed = run("eval", "mme", tmp_path, "--llm", tmp_path, "--data", tmp_path)
    assert failed.exit_code == 1
    assert "found no MME data" in failed.stderr


def test_scoring_loads_no_framework():
    """Neither PyTorch, nor ONNX, nor transformers: results are scored on any machine."""
    code = (
        "import sys; from click.testing import CliRunner; from pargo_export.cli.main import cli\n"
        f"result = CliRunner().invoke(cli, ['eval', 'mme', '--score-only', {str(ANSWERS)!r}, '--json'])\n"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'transformers', 'scipy')\n"
        "print(result.exit_code, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"
