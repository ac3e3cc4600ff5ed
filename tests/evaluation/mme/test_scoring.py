"""Scores, held against the numbers of the official calculator."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from golden_cases import GOLDEN

from pargo_export.errors import InputError
from pargo_export.evaluation.mme import Answer, read_answer, read_results, score_answers, score_results
from pargo_export.evaluation.mme.tasks import OFFICIAL_TASKS, group_of, in_order

EXPECTED = json.loads((GOLDEN / "mme" / "mme_expected.json").read_text())


def answer(text, truth="yes", image="a.jpg", prompt="Is it?"):
    """Return an answer, right if it begins with yes."""
    return Answer(image, prompt, truth, text)


@pytest.mark.parametrize("strict", [False, True])
def test_scores_are_those_of_the_official_calculator(strict):
    """Every number of every task, and the totals, within 1e-9; missing tasks are named and add nothing."""
    found = score_results(GOLDEN / "mme", strict_official=strict)
    assert found.strict_official is strict
    assert set(found.groups) == set(EXPECTED)
    for name, group in EXPECTED.items():
        assert found.groups[name].total == pytest.approx(group["total"], abs=1e-9)
        assert list(found.groups[name].missing) == group["missing"]
        assert list(found.groups[name].tasks) == list(group["tasks"])
        for task, values in group["tasks"].items():
            ours = found.groups[name].tasks[task].model_dump()
            assert {key: ours[key] for key in values} == pytest.approx(values, abs=1e-9)
    assert found.total == pytest.approx(sum(group["total"] for group in EXPECTED.values()), abs=1e-9)
    assert found.total_with_additional == found.total


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("YES and no", "yes"),
        ("no, yes", "yes"),  # yes is looked for first
        ("The true answer is yes", "other"),  # its first letter is the 20th character
        ("The answer is yes", "yes"),
        ("Unknown", "no"),
        ("A snow field", "no"),
        ("N/A", "other"),
        ("", "other"),
        (f"{' ' * 18}no", "no"),
        (f"{' ' * 19}no", "other"),  # white space counts
        ("\u0130\u0130\u0130\u0130\u0130\u0130\u0130\u0130\u0130\u0130no", "other"),  # lower case is longer
    ],
)
def test_an_answer_is_read_from_its_first_twenty_characters(text, expected):
    """Yes before no, anywhere in the first 20 characters in lower case."""
    assert read_answer(text) == expected


def test_doubtful_answers_are_scored_officially_and_named():
    """Unknown counts as a no, as it does officially, and the result says so."""
    found = score_answers({"count": [answer("Unknown", "no"), answer("Nope", "yes", prompt="And?")]})
    assert found.tasks["count"].acc == 0.5
    (warning,) = found.warnings
    assert warning.startswith("1 answer(s) hold yes or no within another word")
    assert warning.endswith("for example 'Unknown'; by task: count 1")


def test_a_model_that_says_neither_is_named():
    """Most answers being neither yes nor no hints at a wrong template, which the result says."""
    lines = [answer("frofro"), answer("frofro", "no", prompt="And?")]
    assert (
        "2 of 2 answers are neither yes nor no; see that template"
        in score_answers({"count": lines}).warnings[0]
    )
    assert score_answers({"count": [answer("yes"), lines[1]]}).warnings == ()


def test_both_questions_count_for_acc_plus_in_any_order():
    """Lines of two images may be mixed; an image counts only if both of its answers are right."""
    lines = [
        answer("yes", "yes", "a.jpg"),
        answer("no", "no", "b.jpg"),
        answer("no", "no", "a.jpg", "And?"),
        answer("what?", "yes", "b.jpg", "And?"),
    ]
    found = score_answers({"scene": lines}).tasks["scene"]
    assert (found.acc, found.acc_plus, found.score) == (0.75, 0.5, 125.0)
    assert (found.other_num, found.num_images, found.num_questions) == (1, 2, 4)
    assert (found.precision, found.recall) == (1.0, 1.0)  # what is neither is left out


def test_tasks_that_mme_does_not_have_stay_outside_of_the_totals():
    """They form a group of their own."""
    lines = [answer("yes"), answer("no", "no", prompt="And?")]
    found = score_answers({"fine_detail": lines, "count": lines})
    assert found.groups["Additional"].total == 200.0
    assert (found.total, found.total_with_additional) == (200.0, 400.0)
    assert "Additional" not in score_answers({"count": lines}).groups
    assert in_order(["zebra", "fine_detail", "OCR", "count"]) == ["count", "OCR", "fine_detail", "zebra"]
    assert [group_of(task) for task in OFFICIAL_TASKS] == ["Perception"] * 10 + ["Cognition"] * 4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "found no answers"),
        ([answer("yes")], r"two questions about every image.* 1: a\.jpg \(1\)"),
        ([answer("yes")] * 3, r"a\.jpg \(3\)"),
        ([answer("yes", "maybe")] * 2, r"a\.jpg: found the ground truth 'maybe'"),
    ],
)
def test_what_cannot_be_scored_is_told(lines, message):
    """The message names task and image."""
    with pytest.raises(InputError, match=f"task count.*{message}"):
        score_answers({"count": lines})


def test_a_changed_answer_changes_the_score():
    """One answer more that is right: 100 / questions for acc, and 100 / images if the other was right."""
    answers = {task: list(found) for task, found in read_results(GOLDEN / "mme").items()}
    index = next(i for i, item in enumerate(answers["artwork"]) if not item.is_right)
    before = score_answers(answers).tasks["artwork"]
    answers["artwork"][index] = replace(answers["artwork"][index], text="yes")
    after = score_answers(answers).tasks["artwork"]
    assert after.score - before.score == pytest.approx(100 / 12 + 100 / 6)
