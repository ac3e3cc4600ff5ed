"""The synthetic data: deterministic, disjoint, in MME's layout, and true of what was drawn."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
from backgrounds import IMAGE_SIZE, PHOTOGRAPHS, SPLITS
from captions import caption, inventory
from examples_stream import make_example
from mme_data import write_mme
from pargocap import write_captions
from PIL import Image
from question_reading import holds
from questions import ENDING
from scenes import TASKS, Item, Scene, Text, generator, place

from pargo_calibration import open_source
from pargo_export.evaluation.mme import read_mme

NUM_EXAMPLES = 140


@pytest.fixture(scope="module")
def examples():
    """Return examples of all tasks, of the test split."""
    return [make_example(3, "test", index) for index in range(NUM_EXAMPLES)]


def test_questions_are_true_of_their_scenes(examples):
    """Every Yes question holds for its scene and every No question does not, by an independent reading."""
    asked = [(example.scene, pair) for example in examples for pair in example.pairs]
    assert {pair.task for _, pair in asked} == set(TASKS)
    wrong = [pair for scene, pair in asked if not holds(scene, pair.yes) or holds(scene, pair.no)]
    assert wrong == []


def test_first_pair_is_of_the_task(examples):
    """The first pair is what the example was made for, and no task comes twice."""
    for index, example in enumerate(examples):
        tasks = [pair.task for pair in example.pairs]
        assert tasks[0] == example.task == TASKS[index % len(TASKS)]
        assert len(set(tasks)) == len(tasks)


def test_wrong_answers_are_often_hard(examples):
    """Half of the wrong colours are those of another thing in the image, where there is one of another colour."""
    hard = []
    for example in examples:
        for pair in example.pairs:
            if pair.task == "color":
                wrong = pair.no.removesuffix(ENDING).rstrip("?").split()[-1]
                hard.append(wrong in {item.color for item in example.scene.items})
    assert len(hard) > 30
    assert np.mean(hard) > 0.35


def test_same_seed_gives_the_same_example():
    """Seed, split and index decide; each of them changes the image."""
    first = make_example(5, "train", 8)
    again = make_example(5, "train", 8)
    assert again.scene == first.scene
    assert again.pairs == first.pairs
    assert np.array_equal(again.drawing.pixels, first.drawing.pixels)
    for other in (make_example(6, "train", 8), make_example(5, "test", 8), make_example(5, "train", 15)):
        assert other.scene != first.scene
        assert not np.array_equal(other.drawing.pixels, first.drawing.pixels)


def test_questions_do_not_change_the_image(monkeypatch):
    """Layout, questions and looks have random numbers of their own: with other questions the picture is the same."""
    drawn = [generator(5, "train", 8, stream).integers(1 << 60) for stream in ("layout", "questions", "look")]
    assert len(set(drawn)) == 3
    whole = make_example(5, "train", 8)
    monkeypatch.setattr("examples_stream.pairs", lambda _rng, _scene: ())
    alone = make_example(5, "train", 8)
    assert len(alone.pairs) == 1 < len(whole.pairs)
    assert alone.scene == whole.scene
    assert np.array_equal(alone.drawing.pixels, whole.drawing.pixels)


def test_answers_say_what_is_seen(examples):
    """What is asked for and not there is seen nowhere; otherwise both answers rest on the same."""
    seen = {}
    for example in examples:
        for pair in example.pairs:
            yes, no = pair.answers
            assert yes == f"{pair.seen_yes}, yes"
            assert no == f"{pair.seen_no}, no"
            seen.setdefault(pair.task, set()).add(pair.seen_no == "nowhere")
            assert pair.seen_no in {"nowhere", pair.seen_yes}
    assert seen["existence"] == {True}
    assert seen["fine_detail"] == {True, False}
    assert all(seen[task] == {False} for task in set(TASKS) - {"existence", "fine_detail"})


def test_splits_are_disjoint():
    """No photograph and no scene of one split occurs in another."""
    scenes, photographs = {}, {}
    for split in SPLITS:
        made = [make_example(0, split, index) for index in range(42)]
        scenes[split] = {example.scene for example in made}
        photographs[split] = {example.photograph for example in made}
        assert photographs[split] <= set(PHOTOGRAPHS[split])
    for one, other in (("train", "test"), ("train", "calibration"), ("calibration", "test")):
        assert not scenes[one] & scenes[other]
        assert not photographs[one] & photographs[other]
        assert not set(PHOTOGRAPHS[one]) & set(PHOTOGRAPHS[other])


def test_things_do_not_overlap(examples):
    """No two things touch, and all lie inside the image."""
    for example in examples:
        boxes = []
        for item in example.scene.items:
            half = item.pixels / 2
            boxes.append((item.x - half, item.y - half, item.x + half, item.y + half))
        for index, (left, top, right, bottom) in enumerate(boxes):
            assert min(left, top) >= 0
            assert max(right, bottom) <= IMAGE_SIZE
            for other in boxes[:index]:
                assert left > other[2] or other[0] > right or top > other[3] or other[1] > bottom


def test_mme_layout(tmp_path):
    """The evaluation reads what is written: two questions an image, one Yes and one No, in either order."""
    num_questions = write_mme(tmp_path, seed=1, images_per_task=4)
    data = read_mme(tmp_path)
    assert set(data.tasks) == set(TASKS)
    assert num_questions == data.num_questions == 2 * 4 * len(TASKS)
    orders = Counter()
    for task in data.tasks.values():
        for image in task.images:
            assert sorted(question.truth for question in image.questions) == ["no", "yes"]
            assert all(question.text.endswith("Please answer yes or no.") for question in image.questions)
            with Image.open(image.path) as picture:
                assert picture.size == (IMAGE_SIZE, IMAGE_SIZE)
            orders[image.questions[0].truth] += 1
    assert orders["yes"] == orders["no"]
    lines = (tmp_path / "Data_json" / "color.txt").read_text().splitlines()
    assert re.fullmatch(r"0000\.png\tIs the \w+ \w+\? Please answer yes or no\.\t(Yes|No)", lines[0])


def test_written_files_are_reproducible(tmp_path):
    """The same seed writes the same bytes."""
    for name in ("one", "two"):
        write_mme(tmp_path / name, seed=1, images_per_task=1)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 * len(TASKS)
    assert all(
        (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files
    )


def test_captions_are_calibration_data(tmp_path):
    """Calibration reads the manifest, with a caption for each image."""
    manifest = write_captions(tmp_path, seed=0, split="calibration", count=3)
    assert len(open_source(manifest).entries()) == 3
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [record["image"] for record in records] == [f"images/{index:06d}.png" for index in range(3)]
    assert {record["photograph"] for record in records} <= set(PHOTOGRAPHS["calibration"])
    for index, record in enumerate(records):
        assert record["caption"] == caption(make_example(0, "calibration", index).scene)


def test_caption_names_everything():
    """A caption names attributes and place of all things in reading order, and counts the shapes."""
    scene = Scene(
        (
            Item("ring", "red", "striped", "small", 15, 80, 80),
            Item("cross", "blue", "plain", "tiny", 9, 50, 10),
            Item("ring", "white", "dotted", "large", 25, 20, 15),
        ),
        Text("3+4", "sum", "black", 48, 50),
    )
    assert caption(scene) == (
        "The image shows at the top left a large dotted white ring, at the top center a tiny blue cross, "
        'at the middle center the sum "3+4" with the answer 7, at the bottom right a small striped red ring. '
        "It has 1 cross, 2 rings."
    )
    assert place(95, 0) == "top right"


def test_inventory_names_things_in_their_order():
    """The other caption goes by names: what, where, how it looks."""
    scene = Scene(
        (
            Item("star", "red", "striped", "small", 15, 80, 80),
            Item("cross", "blue", "plain", "tiny", 9, 50, 10),
        ),
        Text("3+4", "sum", "black", 48, 50),
    )
    assert inventory(scene) == (
        "There are 3 things: the cross is at the top center, blue, tiny; the star is at the bottom right, red, small, "
        'striped; the sum "3+4" with the answer 7 is at the middle center.'
    )
