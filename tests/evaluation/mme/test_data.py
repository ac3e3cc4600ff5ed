"""Folders of MME, in both layouts."""

from __future__ import annotations

import shutil

import pytest
from mme_case import TASKS, write_data

from pargo_export.errors import ImageError, InputError
from pargo_export.evaluation.mme import Question, read_mme
from pargo_export.evaluation.mme.data import find_picture


def as_released(data, folder):
    """Write the same data as MME was released: one task in two folders, one with images and texts side by side."""
    for task, (pictures, texts) in {
        "existence": ("images", "questions_answers_YN"),
        "code_reasoning": ("", ""),
    }.items():
        for image in data.tasks[task].images:
            for inner in (pictures, texts):
                (folder / task / inner).mkdir(parents=True, exist_ok=True)
            shutil.copy(image.path, folder / task / pictures / image.name)
            lines = [f"{item.text}\t{item.truth.capitalize()}\r\n" for item in image.questions]
            (folder / task / texts / f"{image.path.stem}.txt").write_text("".join(lines), newline="")
    (folder / "eval_tool").mkdir()
    (folder / "eval_tool" / "readme.txt").write_text("no task")
    return folder


def test_the_layout_of_pargo_is_read(mme_data):
    """Tasks in the official order, each image once with its two questions."""
    found = read_mme(mme_data)
    assert list(found.tasks) == ["existence", "code_reasoning", "fine_detail"]
    assert (found.layout, found.num_images, found.num_questions) == ("pargo", 9, 18)
    first = found.tasks["existence"].images[0]
    assert (first.name, first.path) == ("0.png", mme_data / "images" / "existence" / "0.png")
    assert first.questions == (
        Question("Is existence 0 right? Please answer yes or no.", "yes"),
        Question("Is existence 0 wrong? Please answer yes or no.", "no"),
    )


def test_the_released_layout_is_read(mme_data, tmp_path):
    """Folders with images and texts apart or side by side, in the folder of the release or in it; the same hashes."""
    data = read_mme(mme_data)
    as_released(data, tmp_path / "MME_Benchmark_release_version")
    found = read_mme(tmp_path)
    assert (found.layout, list(found.tasks)) == ("release", ["existence", "code_reasoning"])
    assert {task: item.sha256 for task, item in found.tasks.items()} == {
        task: data.tasks[task].sha256 for task in found.tasks
    }
    assert read_mme(tmp_path / "MME_Benchmark_release_version").tasks == found.tasks
    assert find_picture(found.root, "existence", "0.png") == found.tasks["existence"].images[0].path
    assert find_picture(found.root, "code_reasoning", "0.png") is not None
    assert find_picture(found.root, "count", "0.png") is None


def test_tasks_and_images_can_be_chosen(mme_data):
    """Some tasks, the first images of each; a sample takes the tasks in turns."""
    found = read_mme(mme_data, tasks=("fine_detail", "existence"), limit=2)
    assert {name: len(task.images) for name, task in found.tasks.items()} == {
        "existence": 2,
        "fine_detail": 2,
    }
    assert [image.path.parent.name for image in found.sample(3)] == ["existence", "fine_detail", "existence"]
    assert len(found.sample(100)) == 4
    with pytest.raises(InputError, match="no task scene; it has existence, code_reasoning, fine_detail"):
        read_mme(mme_data, tasks=("scene",))
    with pytest.raises(InputError, match="limit: found 0"):
        read_mme(mme_data, limit=0)


def test_the_hash_is_that_of_questions_and_images(mme_data, tmp_path):
    """Any change of a question, an answer or a pixel changes it; where the data lie does not."""
    copy = write_data(tmp_path / "copy", TASKS)
    before = read_mme(copy)
    assert before.sha256 == read_mme(mme_data).sha256
    questions = copy / "Data_json" / "existence.txt"
    text = questions.read_text()
    questions.write_text(text.replace("\tYes\n", "\tNo\n", 1))
    changed = read_mme(copy)
    assert changed.sha256 != before.sha256
    assert changed.tasks["fine_detail"].sha256 == before.tasks["fine_detail"].sha256
    questions.write_text("\ufeff" + text.replace("\n", "\r\n\r\n"), encoding="utf-8")
    assert read_mme(copy).sha256 == before.sha256
    images = copy / "images" / "existence"
    shutil.copy(images / "1.png", images / "0.png")
    assert read_mme(copy).tasks["existence"].sha256 != before.tasks["existence"].sha256
    gone = read_mme(copy)
    (images / "0.png").unlink()
    with pytest.raises(ImageError, match=r"0\.png: cannot be read"):
        _ = gone.tasks["existence"].sha256


def test_missing_images_are_listed_or_left_out(tmp_path):
    """By default they fail, all at once; if asked for they are left out, as the official evaluation does."""
    root = write_data(tmp_path, {"count": 3, "scene": 1})
    for name in ("0", "2"):
        (root / "images" / "count" / f"{name}.png").unlink()
    (root / "images" / "scene" / "0.png").unlink()
    with pytest.raises(InputError, match=r"3 image\(s\) are missing: .*count/0\.png.*--skip-missing"):
        read_mme(root)
    found = read_mme(root, skip_missing=True)
    assert [image.name for image in found.tasks["count"].images] == ["1.png"]
    assert list(found.tasks) == ["count"]
    assert len(found.skipped) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.png\tIs it?", r"count\.txt, line 3: found 2 field\(s\), expected 3"),
        ("0.png\tIs it?\tmaybe", r"line 3: found the answer 'maybe'"),
        ("0.png\tIs it?\tYes", r"image 0\.png: found 3 question\(s\), expected two"),
        ("../0.png\tIs it?\tYes\n../0.png\tNot?\tNo", r"found the image '\.\./0\.png', expected the name"),
        ("0.png\t \tYes", "line 3: found no question"),
    ],
)
def test_malformed_questions_are_told(tmp_path, line, message):
    """With file and line."""
    root = write_data(tmp_path, {"count": 1})
    with (root / "Data_json" / "count.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=message):
        read_mme(root)


def test_folders_without_data_are_told(tmp_path):
    """Both layouts are named."""
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"Data_json/TASK\.txt.*questions_answers_YN"):
            read_mme(root)
    (tmp_path / "Data_json").mkdir()
    with pytest.raises(InputError, match="no task at all"):
        read_mme(tmp_path)
