"""The sample that travels with the package: small, complete, and it answers."""

from __future__ import annotations

import re

import numpy as np
import torch
from examples_stream import make_example
from safetensors import safe_open
from scenes import TASKS
from scoring import table_of
from tower_training import normalised

from pargo_export import load_checkpoint
from pargo_export.assets import TRAINED_SAMPLE
from pargo_export.checkpoint.key_mapping import Derived, Weight, classify
from pargo_export.evaluation.mme import Answer, score_answers
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


def test_it_answers_unseen_questions():
    """On images that were not made for training or for the test set, far more answers are right than by a coin."""
    torch.set_num_threads(1)
    model = load_checkpoint(TRAINED_SAMPLE / "model.safetensors")
    answers = {}
    with open_language_model(TRAINED_SAMPLE / "llm") as language_model:
        chat = Chat(None, language_model, settings=GREEDY)
        for task in TASKS:
            examples = [make_example(77, "test", index, task) for index in range(NUM_IMAGES)]
            pixels = np.stack([example.drawing.pixels for example in examples])
            tokens = model.encode_images(normalised(pixels)).numpy()
            asked = [
                (str(index), question, truth)
                for index, example in enumerate(examples)
                for question, truth in ((example.pairs[0].yes, "yes"), (example.pairs[0].no, "no"))
            ]
            found = chat.answer(np.repeat(tokens, 2, axis=0), [question for _, question, _ in asked])
            assert all(re.fullmatch(r".+, (yes|no)", text) for text in found)
            answers[task] = [Answer(*fields, text) for fields, text in zip(asked, found, strict=True)]
    table = table_of(score_answers(answers))
    accuracies = [table[task]["acc"] for task in TASKS]
    assert sum(accuracies) / len(accuracies) > SURELY_NOT_A_COIN


def test_card_says_what_it_is():
    """The card names every task with its score, the limits and the photographs' licences."""
    card = (TRAINED_SAMPLE / "CARD.md").read_text()
    for task in TASKS:
        assert re.search(rf"\| {task} \| \d+\.\d \| [01]\.\d+ \| [01]\.\d+ \|", card)
    assert "CC BY 2.0" in card
    assert "## Limits" in card
