"""The sample that travels with the package: small, complete, and it answers."""

from __future__ import annotations

import re

import torch
from mme_data import write_mme
from safetensors import safe_open
from scenes import TASKS
from scoring import answer_mme, table_of

from pargo_export import load_checkpoint
from pargo_export.assets import TRAINED_SAMPLE
from pargo_export.checkpoint.key_mapping import Derived, Weight, classify
from pargo_export.evaluation.mme import read_mme, score_answers
from pargo_export.llm import GREEDY, Chat, open_language_model

MOST_BYTES = 10e6
NUM_IMAGES = 6  # of each task
# A coin has 2 * 42 / 2 = 42 of 84 right, with a standard deviation of 4.6.
SURELY_NOT_A_COIN = 0.65


def test_it_is_small_and_complete():
    """Checkpoint, language model and card are there and stay within the size of a sample."""
    files = {
        str(path.relative_to(TRAINED_SAMPLE)): path for path in TRAINED_SAMPLE.rglob("*") if path.is_file()
    }
    assert {"model.safetensors", "llm/config.json", "llm/tokenizer.json", "CARD.md"} <= files.keys()
    assert sum(path.stat().st_size for path in files.values()) < MOST_BYTES


def test_checkpoint_has_the_official_layout():
    """Every key is an official weight or buffer, in half precision."""
    with safe_open(TRAINED_SAMPLE / "model.safetensors", "pt") as file:
        keys = list(file.keys())
        dtypes = {file.get_tensor(key).dtype for key in keys}
    roles = [classify(key) for key in keys]
    assert all(isinstance(role, Weight | Derived) for role in roles)
    assert {role.kind for role in roles if isinstance(role, Derived)} == {
        "rotary_cosines",
        "rotary_sines",
        "position_indices",
    }
    assert dtypes == {torch.float16, torch.int64}


def test_it_answers_unseen_questions(tmp_path):
    """On images that were not made for training or for the test set, far more answers are right than by a coin."""
    torch.set_num_threads(1)
    write_mme(tmp_path, seed=77, images_per_task=NUM_IMAGES)
    model = load_checkpoint(TRAINED_SAMPLE / "model.safetensors")
    with open_language_model(TRAINED_SAMPLE / "llm") as language_model:
        answers = answer_mme(model, Chat(None, language_model, settings=GREEDY), read_mme(tmp_path))
    for task, given in answers.items():
        assert len(given) == 2 * NUM_IMAGES, task
        assert all(re.fullmatch(r".+, (yes|no)", answer.text) for answer in given)
    table = table_of(score_answers(answers))
    accuracies = [table[task]["acc"] for task in TASKS]
    assert sum(accuracies) / len(accuracies) > SURELY_NOT_A_COIN
