"""Result files: what is read, what is refused, and what the official calculator would do."""

from __future__ import annotations

import pytest

from pargo_export.errors import InputError
from pargo_export.evaluation.mme import Answer, read_results, score_results
from pargo_export.evaluation.mme.results import write_answers

GOOD = "a.jpg\tIs it?\tYes\tYes\na.jpg\tIs it not?\tNo\tno way\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with one good task."""
    (tmp_path / "count.txt").write_text(GOOD)
    return tmp_path


def test_marks_line_ends_and_blank_lines_do_no_harm(folder):
    """A byte order mark, CRLF, blank lines and spaces around the ground truth change nothing."""
    (folder / "scene.txt").write_bytes(
        b"\xef\xbb\xbf\r\n"
        + GOOD.replace("\n", "\r\n").replace("\tNo\t", "\t no \t").encode()
        + b"\r\n  \r\n"
    )
    found = read_results(folder)
    assert list(found) == ["count", "scene"]
    assert found["scene"] == found["count"]
    assert found["count"][1] == Answer("a.jpg", "Is it not?", "no", "no way")


def test_other_files_beside_the_results_are_left_alone(folder):
    """Only TASK.txt are results."""
    (folder / "run.json").write_text("{}")
    (folder / "more").mkdir()
    assert list(read_results(folder)) == ["count"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg\tIs it?\tYes\n", r"count\.txt, line 1: found 3 field\(s\), expected 4"),
        (GOOD + "\nb.jpg\tIs it?\tmaybe\tyes\n", r"count\.txt, line 4: found the ground truth 'maybe'"),
        ("\n\n", r"count\.txt: found no answers"),
        (GOOD + "b.jpg\tIs it?\tYes\tyes\n", r"task count: expected two questions.*b\.jpg \(1\)"),
    ],
)
def test_malformed_files_are_told_with_their_line(folder, content, message):
    """File, line, what was found and what was expected."""
    (folder / "count.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        score_results(folder)


def test_folders_without_results_are_told(tmp_path):
    """A folder that is missing, empty, or has only results of other tasks where official ones are wanted."""
    with pytest.raises(InputError, match="no such directory"):
        score_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no result files"):
        score_results(tmp_path)
    (tmp_path / "fine_detail.txt").write_text(GOOD)
    assert score_results(tmp_path).total_with_additional == 200.0
    with pytest.raises(InputError, match="results of no official task"):
        score_results(tmp_path, strict_official=True)
    (tmp_path / "count.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"count\.txt: cannot be read as UTF-8"):
        score_results(tmp_path)


def test_strictly_lines_are_paired_as_they_come(folder):
    """Two lines in turn are an image, whatever they name; we refuse such a file."""
    lines = ["a.jpg\tA\tYes\tYes", "b.jpg\tA\tYes\tYes", "a.jpg\tB\tNo\tNo", "b.jpg\tB\tNo\tYes"]
    (folder / "count.txt").write_text("\n".join(lines) + "\n")
    found = score_results(folder, strict_official=True).tasks["count"]
    assert (found.acc, found.acc_plus) == (0.75, 0.5)
    ours = score_results(folder).tasks["count"]
    assert (ours.acc, ours.acc_plus) == (0.75, 0.5)
    (folder / "count.txt").write_text("\n".join([*lines[:2], lines[3], lines[2]]) + "\n")
    assert score_results(folder, strict_official=True).tasks["count"].acc_plus == 0.5
    three = [*lines[:2], "c.jpg\tB\tNo\tNo", "b.jpg\tB\tNo\tNo"]
    (folder / "count.txt").write_text("\n".join(three) + "\n")
    assert score_results(folder, strict_official=True).tasks["count"].acc_plus == 1.0
    with pytest.raises(InputError, match=r"a\.jpg \(1\), c\.jpg \(1\)"):
        score_results(folder)


def test_strictly_only_official_tasks_that_can_be_read_count(folder):
    """Other tasks are left alone, and a file that cannot be decoded adds nothing, as officially."""
    (folder / "fine_detail.txt").write_text(GOOD)
    (folder / "scene.txt").write_bytes(b"\xff\xfe\xff")
    found = score_results(folder, strict_official=True)
    assert list(found.tasks) == ["count"]
    assert "scene" in found.groups["Perception"].missing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (GOOD + "\n", r"line 3: the official calculator stops here: 1 field"),
        (GOOD + "b.jpg\tIs it?\tYes\tyes\n", "3 lines, an odd number"),
        (GOOD.replace("\tNo\t", "\tNo \t"), r"line 2: .*ground truth 'No ' is neither"),
        (GOOD.replace("\tYes\n", "\tmaybe\n").replace("no way", "what?"), "no answer is yes or no"),
        ("\ufeff" + GOOD.replace("a.jpg", "a.jpg\t", 1), r"line 1: .*5 field"),
    ],
)
def test_strictly_it_stops_where_the_official_calculator_does(folder, content, message):
    """In place of its traceback there is an error with the reason."""
    (folder / "count.txt").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=f"the official calculator stops here.*{message}|{message}"):
        score_results(folder, strict_official=True)


def test_what_was_written_is_read_back(tmp_path):
    """Line ends and tabs within a field become spaces, as in the official code."""
    answers = (Answer("a b.jpg", "One\nTwo\tThree?", "yes", "Yes\r\nit is"), Answer("a b.jpg", "Q", "no", ""))
    write_answers(tmp_path / "OCR.txt", answers)
    assert (tmp_path / "OCR.txt").read_text() == "a b.jpg\tOne Two Three?\tYes\tYes it is\na b.jpg\tQ\tNo\t\n"
    assert read_results(tmp_path)["OCR"] == (
        Answer("a b.jpg", "One Two Three?", "yes", "Yes it is"),
        Answer("a b.jpg", "Q", "no", ""),
    )
    assert score_results(tmp_path, strict_official=True).tasks["OCR"].other_num == 1
