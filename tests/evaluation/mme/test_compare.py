"""Differences between two sets of answers, held against numbers computed by hand and by other libraries."""

from __future__ import annotations

from itertools import count
from math import comb

import numpy as np
import pytest
from golden_cases import GOLDEN
from mme_case import write_results

from pargo_export.errors import InputError
from pargo_export.evaluation.mme.compare import compare_answers, mcnemar_p
from pargo_export.evaluation.mme.results import read_pairs
from pargo_export.evaluation.mme.score_only import score_only

RIGHT, HALF, WRONG = ("yes", "no"), ("yes", "yes"), ("no", "yes")


@pytest.fixture
def compare(tmp_path):
    """Return a function that compares answers of two folders."""
    counter = count()

    def compared(baseline, found, **values):
        folders = (tmp_path / str(next(counter)) for _ in range(2))
        pairs = [
            read_pairs(write_results(folder, answers))
            for folder, answers in zip(folders, (baseline, found), strict=True)
        ]
        return compare_answers(*pairs, baseline_name="one", name="two", **values)

    return compared


def test_flips_are_found_in_both_directions(compare):
    """A question that only one answers right is a flip; other changes are not."""
    found = compare(
        {"count": [RIGHT, HALF, ("what?", "no")], "fine_detail": [WRONG, RIGHT]},
        {"count": [HALF, RIGHT, ("Not at all", "no")], "fine_detail": [RIGHT, ("Yes!", "no")]},
    )
    assert [(flip.task, flip.image, flip.prompt, flip.is_gain) for flip in found.flips] == [
        ("count", "0.png", "Is count 0 wrong?", False),
        ("count", "1.png", "Is count 1 wrong?", True),
        ("fine_detail", "0.png", "Is fine_detail 0 right?", True),
        ("fine_detail", "0.png", "Is fine_detail 0 wrong?", True),
    ]
    assert (found.flips[0].baseline_answer, found.flips[0].answer, found.flips[0].truth) == (
        "no",
        "yes",
        "no",
    )
    assert (found.num_gained, found.num_lost, found.num_questions) == (3, 1, 10)
    assert (found.num_same_text, found.num_same_reading) == (4, 5)
    assert found.tasks["count"].difference == 0.0
    assert found.tasks["fine_detail"].difference == pytest.approx(100.0)
    assert (found.difference, found.difference_with_additional) == (0.0, pytest.approx(100.0))
    assert found.verdict == "no significant change"


def test_lines_in_another_order_are_brought_together(tmp_path):
    """Images and the two questions of an image may come in another order."""
    first = write_results(tmp_path / "one", {"count": [RIGHT, HALF, WRONG]})
    lines = (first / "count.txt").read_text().splitlines()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "count.txt").write_text("\n".join(reversed(lines)))
    found = score_only(tmp_path / "two", baseline=first).comparisons[0]
    assert found.verdict == "identical answers"
    assert found.flips == ()


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (3, 1), (2, 9), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    """Twice the smaller tail of a fair coin, at most 1."""
    total, fewer = gained + lost, min(gained, lost)
    tail = sum(comb(total, k) for k in range(fewer + 1)) / 2**total
    assert mcnemar_p(gained, lost) == pytest.approx(min(1.0, 2 * tail))


def test_a_clear_loss_is_significant_and_its_interval_excludes_zero(compare):
    """Ten of twelve images lost: p is tiny, and the interval lies below 0."""
    found = compare({"count": [RIGHT] * 12}, {"count": [HALF] * 10 + [RIGHT] * 2})
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.verdict == "significantly worse"
    assert found.interval.high < 0
    assert found.interval == found.interval_with_additional
    back = compare({"count": [HALF] * 10 + [RIGHT] * 2}, {"count": [RIGHT] * 12})
    assert back.verdict == "significantly better"
    assert back.difference == -found.difference == pytest.approx(125.0)


def test_the_interval_is_that_of_resampled_images(compare):
    """It agrees with a bootstrap written out: images of each task drawn anew, the differences summed over tasks."""
    base = {"count": [RIGHT] * 8, "code_reasoning": [RIGHT] * 10}
    other = {"count": [HALF] * 3 + [RIGHT] * 5, "code_reasoning": [RIGHT] * 6 + [WRONG] * 4}
    found = compare(base, other, seed=3).interval
    rng = np.random.default_rng(0)
    count, code = np.array([-150.0] * 3 + [0.0] * 5), np.array([0.0] * 6 + [-200.0] * 4)
    drawn = [rng.choice(count, 8).mean() + rng.choice(code, 10).mean() for _ in range(20000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found.low, found.high) == (pytest.approx(low, abs=12), pytest.approx(high, abs=12))
    assert found == compare(base, other, seed=3).interval
    assert found.level == 0.95
    assert "2000 resamples" in found.method


def test_intervals_need_two_images_of_every_task(compare):
    """With one image there is none; where nothing changed it is the point itself."""
    assert compare({"count": [RIGHT]}, {"count": [HALF]}).interval is None
    same = compare({"count": [RIGHT, HALF]}, {"count": [RIGHT, HALF]})
    assert (same.interval.low, same.interval.high, same.p_value) == (0.0, 0.0, 1.0)
    only_ours = compare({"fine_detail": [RIGHT, HALF]}, {"fine_detail": [HALF, HALF]})
    assert only_ours.interval is None
    assert only_ours.interval_with_additional.low < 0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"scene": [RIGHT, RIGHT]}, "the tasks differ, count, scene"),
        ({"count": [RIGHT]}, r"questions of task count differ, for example about 1\.png"),
        ({"count": [RIGHT] * 3}, "questions of task count differ"),
    ],
)
def test_other_questions_are_not_compared(compare, found, message):
    """Tasks and questions must be the same."""
    with pytest.raises(InputError, match=f"one and two: .*{message}"):
        compare({"count": [RIGHT, RIGHT]}, found)


def test_two_folders_are_compared_without_a_bundle(tmp_path):
    """The baseline comes first, each variant is named by its folder."""
    other = tmp_path / "other"
    other.mkdir()
    for path in (GOLDEN / "mme").glob("*.txt"):
        (other / path.name).write_text(path.read_text().replace("\tnO\n", "\tyEs\n"))
    for strict in (False, True):
        found = score_only(other, baseline=GOLDEN / "mme", strict_official=strict)
        assert [item.name for item in found.variants] == [str(GOLDEN / "mme"), str(other)]
        assert found.comparisons[0].num_lost == 9
        assert found.comparisons[0].num_gained == 1
        assert found.variants[0].scores.strict_official is strict
    assert score_only(other).comparisons == ()
