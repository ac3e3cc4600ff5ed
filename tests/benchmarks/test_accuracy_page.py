"""docs/accuracy.md says what the results say."""

from __future__ import annotations

import json

import pytest
from accuracy_page import PAGE, accuracy_page, newest

from pargo_export.evaluation.mme.result_file import read_evaluation, write_evaluation


@pytest.fixture
def results():
    """Return the newest result of each study."""
    return [newest(name) for name in ("task-accuracy", "projector-study", "repair")]


def test_page_is_what_the_results_give(results):
    """The page was made from the results in the repository and not edited since."""
    assert PAGE.read_text("utf-8") == accuracy_page(*results)


def test_goals_follow_the_numbers(results, tmp_path):
    """Whether a goal was reached is computed: other numbers, another word."""
    found = read_evaluation(results[0])
    assert "`fp32@onnxruntime`, identical answers: 840 of 840: **reached**" in accuracy_page(*results)
    changed = []
    for item in found.comparisons:
        update = {"num_same_text": 839} if item.variant.startswith("fp32") else {}
        if item.variant.startswith("int8"):
            update = {"difference_with_additional": -500.0}
        changed.append(item.model_copy(update=update))
    path = write_evaluation(found.model_copy(update={"comparisons": tuple(changed)}), tmp_path / "worse.json")
    page = accuracy_page(path, *results[1:])
    assert "`fp32@onnxruntime`, identical answers: 839 of 840: **missed**" in page
    goals = [line for line in page.splitlines() if "total within 1 % of float32" in line]
    assert len(goals) >= 2
    assert all(line.endswith("**missed**") for line in goals)


def test_a_difference_that_is_not_settled_is_called_so(results, tmp_path):
    """An interval that holds zero is not told as an advantage."""
    study = json.loads(results[1].read_text())
    study["differences"]["qformer"]["total"] |= {"low": -1.0, "high": 400.0}
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study))
    line = next(
        line
        for line in accuracy_page(results[0], path, results[2]).splitlines()
        if line.startswith("- ParGo minus Q-Former")
    )
    assert line.endswith("the interval holds zero: not settled.")
