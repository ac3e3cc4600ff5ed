"""MME as the judge of a quantization: what is asked, what is held against what, and what the hash depends on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from mme_case import FACTS, TASKS, TokenReader, write_data

from pargo_export.errors import ConfigError, InputError
from pargo_export.evaluation.mme.data import read_mme
from pargo_export.evaluation.task_budget import MmeDrop, open_mme_drop
from pargo_export.llm import OFFICIAL
from pargo_export.preprocessing import load_image
from pargo_export.quantization.task import TaskOutcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data of three tasks, one of which MME does not have; do not write to it."""
    return write_data(tmp_path_factory.mktemp("mme") / "data", TASKS)


class Graph:
    """Stands for a graph: a picture becomes its mean colours, as seen through two projections.

    Attributes:
        seed: Of the projections.
        seen: The pictures of each call.
    """

    def __init__(self, seed: int = 0) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(3, 2, 8))
        self.seen: list[list[Path]] = []

    def __call__(self, pictures):
        """Return tokens `[B, 2, 8]`."""
        self.seen.append(list(pictures))
        colours = [
            np.asarray(load_image(picture), np.float32).mean(axis=(0, 1)) - 128 for picture in pictures
        ]
        return np.einsum("bc,cqd->bqd", np.stack(colours), self.weights).astype(np.float32)


def open_reader(folder: Path, **changes) -> MmeDrop:
    """Return the task with the answers of a `TokenReader`."""
    return MmeDrop(read_mme(folder), FACTS.model_copy(update=changes), lambda _: TokenReader(), batch_size=2)


def test_every_question_is_asked_about_its_image(folder):
    """Each image is encoded once, in small batches; the score is the sum over all tasks, also those that MME lacks."""
    graph, asked = Graph(), Graph()
    reader = TokenReader()
    texts: list[str] = []
    task = MmeDrop(read_mme(folder), FACTS, lambda _: reader, batch_size=2, progress=texts.append)
    outcome = task.run(graph)
    assert [len(pictures) for pictures in graph.seen] == [2, 1] * 3
    assert len({path for pictures in graph.seen for path in pictures}) == sum(TASKS.values())
    assert texts == [f"graph 1: {name}, 3 images" for name in ("existence", "code_reasoning", "fine_detail")]

    # The same by hand: the question file line by line, and MME's two numbers.
    scores = {}
    right = {}
    for name in TASKS:
        lines = (folder / "Data_json" / f"{name}.txt").read_text().splitlines()
        for position, line in enumerate(lines):
            image, question, truth = line.split("\t")
            (answer,) = TokenReader().answer(asked([folder / "images" / name / image]), [question])
            right[f"{name}/{image}/{position % 2}"] = answer.startswith(truth)
        own = [value for key, value in right.items() if key.startswith(f"{name}/")]
        pairs = list(zip(own[::2], own[1::2], strict=True))
        scores[name] = 100 * sum(own) / len(own) + 100 * sum(map(all, pairs)) / len(pairs)
    assert outcome.correct == right
    assert 0 < sum(right.values()) < len(right)
    assert outcome.scores == pytest.approx(scores)
    assert outcome.total == pytest.approx(sum(scores.values()))
    assert scores["fine_detail"] > 0


def test_evidence_holds_a_graph_against_the_float_one(folder):
    """Totals, tasks and flips are those of the two outcomes; p is that of the binomial with one half."""
    keys = [f"existence/{index}.png/{side}" for index in range(5) for side in (0, 1)]
    baseline = TaskOutcome(180.0, {"existence": 180.0}, dict.fromkeys(keys, True) | {keys[9]: False})
    found = TaskOutcome(100.0, {"existence": 100.0}, {key: index > 6 for index, key in enumerate(keys)})
    evidence = open_reader(folder).evidence(baseline, found, limit_percent=1.0)
    assert (evidence.num_lost, evidence.num_gained) == (7, 1)
    assert evidence.p_value == pytest.approx(2 * (1 + 8) / 2**8)
    assert evidence.drop_percent == pytest.approx(100 * 80 / 180)
    assert (evidence.tasks["existence"].baseline, evidence.tasks["existence"].value) == (180.0, 100.0)
    assert (evidence.num_images, evidence.num_questions) == (9, 18)
    assert (evidence.language_model, evidence.language_model_sha256) == (FACTS.name, FACTS.sha256)
    assert evidence.settings == {"template": FACTS.template, "beams": 1}
    assert evidence.data_sha256 == read_mme(folder).sha256
    same = open_reader(folder).evidence(baseline, baseline, limit_percent=1.0)
    assert (same.num_lost, same.num_gained, same.p_value, same.drop_percent) == (0, 0, 1.0, 0.0)


def test_other_tokens_have_other_answers(folder):
    """Two graphs are told apart: the score is of the graph that was handed over."""
    task = open_reader(folder)
    assert task.run(Graph(0)).correct != task.run(Graph(1)).correct


def test_the_hash_is_of_content(folder, tmp_path):
    """Another folder with the same content has the same hash; a question, an image, or a setting changes it."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    hashes = [open_reader(folder).fingerprint()]
    assert open_reader(copy).fingerprint() == hashes[0]
    changes = ({"sha256": "1" * 64}, {"template": "<ImageHere>{}"}, {"settings": {"beams": 4}})
    hashes += [open_reader(folder, **change).fingerprint() for change in changes]
    questions = copy / "Data_json" / "existence.txt"
    questions.write_text(questions.read_text().replace("right?", "true?"))
    hashes.append(open_reader(copy).fingerprint())
    with (copy / "images" / "existence" / "0.png").open("ab") as file:
        file.write(b"\n")
    hashes.append(open_reader(copy).fingerprint())
    assert len(set(hashes)) == len(hashes) == 6


def test_what_answers_is_opened_late_and_closed(folder):
    """Hashing opens nothing; several graphs share one answerer; leaving the context frees it."""
    events: list[str] = []

    def open_answerer(resources):
        events.append("open")
        resources.callback(events.append, "close")
        return TokenReader()

    with MmeDrop(read_mme(folder), FACTS, open_answerer) as task:
        task.fingerprint()
        assert events == []
        task.run(Graph())
        task.run(Graph())
        assert events == ["open"]
    assert events == ["open", "close"]


def test_refusals(folder, tmp_path):
    """Data, language model and template are looked at before anything is run."""
    model = tmp_path / "llm"
    model.mkdir()
    with pytest.raises(ConfigError, match="found no files there"):
        open_mme_drop(folder, model)
    (model / "config.json").write_text("{}")
    with pytest.raises(InputError, match="found no MME data"):
        open_mme_drop(tmp_path, model)
    with pytest.raises(ConfigError, match="template: found <ImageHere> 0 times"):
        open_mme_drop(folder, model, template="{}")


def test_settings_and_adapters_are_part_of_the_hash(folder, tmp_path):
    """Beams, scale and file of the adapters decide answers; so does each file of the language model."""
    model, adapters = tmp_path / "tiny-llm", tmp_path / "adapters.safetensors"
    model.mkdir()
    (model / "config.json").write_text("{}")
    adapters.write_bytes(b"first")
    made = [
        open_mme_drop(folder, model),
        open_mme_drop(folder, model, settings=dataclasses.replace(OFFICIAL)),
        open_mme_drop(folder, model, adapters=adapters),
        open_mme_drop(folder, model, adapters=adapters, lora_alpha=16),
    ]
    adapters.write_bytes(b"second")
    made.append(open_mme_drop(folder, model, adapters=adapters))
    (model / "config.json").write_text('{"a": 1}')
    made.append(open_mme_drop(folder, model))
    hashes = [task.fingerprint() for task in made]
    assert len(set(hashes)) == len(hashes)
    outcome = TaskOutcome(100.0, {}, {})
    evidence = made[3].evidence(outcome, outcome, limit_percent=0)
    assert evidence.language_model == "tiny-llm"
    assert (evidence.settings["num_beams"], evidence.settings["lora_alpha"]) == (1, 16)
