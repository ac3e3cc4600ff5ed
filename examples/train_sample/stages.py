"""The two stages of the paper: captions align the projector with the language model, then questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captions import CAPTION_QUESTION, INVENTORY_QUESTION
from corpus import Corpus
from numpy.typing import NDArray
from packing import Packed, PackedModel, Text, pack
from questions import Pair, question_pair
from scenes import TASKS, Scene
from torch import Tensor
from training import Log, Schedule, Stage, run_stage

from pargo_export.llm import CHAT_TEMPLATE, MME_TEMPLATE

__all__ = ["Data", "Plan", "prompt_tokens", "run_stages", "yes_no_accuracy"]

# Of the tokens of a question in the loss. Half of the questions are true of their image, so their words say what is in it;
# from answers of one bit alone a model of this size does not begin to learn for a long time.
_PROMPT_WEIGHT = 0.25
_CHECK_IMAGES = 64


@dataclass(frozen=True)
class Plan:
    """How the projector and the language model are trained.

    Attributes:
        captions: Schedule of stage 1.
        questions: Schedule of stage 2.
        caption_batch: Images of one step of stage 1.
        question_batch: Images of one step of stage 2.
        questions_per_image: Questions that share the visual tokens of an image in stage 2, beside its caption: without
            captions the model forgets within a hundred steps what stage 1 taught it.
        caption_length: Tokens of a prompt and its caption; longer ones are cut.
        question_length: Tokens of a prompt and its answer.
        low_precision: Compute matrix products in bfloat16.
    """

    captions: Schedule
    questions: Schedule
    caption_batch: int = 32
    question_batch: int = 24
    questions_per_image: int = 8
    caption_length: int = 96
    question_length: int = 24
    low_precision: bool = True


@dataclass(frozen=True)
class Data:
    """Images as the frozen tower sees them, and their texts.

    Attributes:
        features: float16 `[M, N, C]`.
        corpus: Captions and questions of the same images.
    """

    features: NDArray[np.float16]
    corpus: Corpus

    def image_features(self, chosen: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Return float32 `[B, N, C]` of the chosen images."""
        return torch.from_numpy(np.asarray(self.features[np.asarray(chosen)], dtype=np.float32))


class _Texts:
    """Prompts and answers as tokens, each text tokenized once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self._end = [tokenizer.eos_token_id]

    def tokens(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]

    def asked(self, template: str, question: str, answer: str, prompt_weight: float = 0.0) -> Text:
        """Return the tokens after the image, and those of the answer with `</s>`."""
        return (
            prompt_tokens(self._tokenizer, template, question),
            self.tokens(answer) + self._end,
            prompt_weight,
        )

    def described(self, rng: np.random.Generator, captions: tuple[str, str]) -> Text:
        """Return one of the two captions of an image, after its prompt."""
        which = int(rng.integers(2))
        return self.asked(CHAT_TEMPLATE, (CAPTION_QUESTION, INVENTORY_QUESTION)[which], captions[which])


def prompt_tokens(tokenizer: Any, template: str, question: str) -> list[int]:
    """Return the tokens of a filled template after the image."""
    after = template.split("<ImageHere>")[1].replace("{}", question)
    tokens: list[int] = tokenizer.encode(after, add_special_tokens=False)
    return tokens


def prefix_tokens(tokenizer: Any) -> list[int]:
    """Return `<s>` and the tokens before the image; both templates begin alike."""
    before = MME_TEMPLATE.split("<ImageHere>")[0]
    return [tokenizer.bos_token_id, *tokenizer.encode(before, add_special_tokens=False)]


def run_stages(
    model: PackedModel,
    tokenizer: Any,
    train: Data,
    held_out: Data,
    plan: Plan,
    directory: Path,
    log: Log,
    *,
    seed: int,
    resume: bool = False,
    stop_after: int | None = None,
) -> None:
    """Train `model` in place.

    Args:
        model: Projector and language model.
        tokenizer: Of the language model.
        train: Training images.
        held_out: Images for the accuracy in the log.
        plan: Steps, batches, lengths.
        directory: Where checkpoints are kept.
        log: Gets losses and accuracies.
        seed: Chooses the order of the images and of the questions.
        resume: Go on from the last checkpoint.
        stop_after: Stop after this many steps of stage 2: an interruption, for tests.
    """
    texts, padding = _Texts(tokenizer), tokenizer.pad_token_id

    def loss(chosen: NDArray[np.int64], packed: Packed) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.low_precision):
            return model(train.image_features(chosen), packed)  # type: ignore[no-any-return]

    def caption_loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 1, step])
        chosen = rng.integers(len(train.corpus), size=plan.caption_batch)
        rows = [[texts.described(rng, train.corpus.captions[index])] for index in chosen]
        return loss(chosen, pack(rows, [plan.caption_length], padding))

    def question_loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 2, step])
        chosen = rng.integers(len(train.corpus), size=plan.question_batch)
        rows = [
            [
                texts.described(rng, train.corpus.captions[index]),
                *_ask(
                    rng, texts, train.corpus.scenes[index], train.corpus.task(index), plan.questions_per_image
                ),
            ]
            for index in chosen
        ]
        lengths = [plan.caption_length] + [plan.question_length] * plan.questions_per_image
        return loss(chosen, pack(rows, lengths, padding))

    def check() -> dict[str, float]:
        return yes_no_accuracy(model, tokenizer, held_out, length=plan.question_length)

    run_stage(Stage("captions", model, caption_loss, plan.captions), directory, log, resume=resume)
    questions = Stage("questions", model, question_loss, plan.questions, check)
    run_stage(questions, directory, log, resume=resume, stop_after=stop_after)


def _ask(rng: np.random.Generator, texts: _Texts, scene: Scene, task: str, count: int) -> list[Text]:
    """Return `count` questions about one image: half of them openly, the others in pairs of a Yes and a No.

    They are made anew each time, so that hardly any comes twice. Both of a pair come together: their difference is what
    is to be learnt, and all else cancels in the gradient.
    """
    asked: list[Text] = []
    num_open = count // 2
    while len(asked) < count:
        pair = _make_pair(rng, scene, task)
        if len(asked) < num_open:
            asked.append(texts.asked(CHAT_TEMPLATE, pair.open, pair.answer, _PROMPT_WEIGHT))
        else:
            asked.append(texts.asked(MME_TEMPLATE, pair.yes, "Yes", _PROMPT_WEIGHT))
            asked.append(texts.asked(MME_TEMPLATE, pair.no, "No", _PROMPT_WEIGHT))
    return asked[:count]


def _make_pair(rng: np.random.Generator, scene: Scene, task: str) -> Pair:
    """Return a pair of the task that the scene was made for half the time: some tasks have no other scenes."""
    pair = None
    while pair is None:
        other = TASKS[int(rng.integers(len(TASKS)))]
        # As in `make_example`: "only one" would be right without looking in scenes that are not made for counting.
        chosen = task if other == "count" or rng.random() < 0.5 else other
        pair = question_pair(rng, scene, chosen)
    return pair


@torch.no_grad()
def yes_no_accuracy(model: PackedModel, tokenizer: Any, data: Data, *, length: int) -> dict[str, float]:
    """Return for each task the share of right answers, by which of "Yes" and "No" is likelier.

    A quick look during training; the scores in reports come from generated answers.
    """
    count = min(len(data.corpus), _CHECK_IMAGES)
    answers = [tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No")]
    right: dict[str, list[bool]] = {}
    for index in range(count):
        pairs = data.corpus.pairs[index]
        prompts = [
            prompt_tokens(tokenizer, MME_TEMPLATE, question)
            for pair in pairs
            for question in (pair.yes, pair.no)
        ]
        packed = pack(
            [[(prompt, answers[:1], 0.0) for prompt in prompts]],
            [length] * len(prompts),
            tokenizer.pad_token_id,
        )
        scores = model.answer_scores(data.image_features([index]), packed)[:, answers]  # [K, 2]
        for pair, (yes, no) in zip(pairs, scores.argmax(-1).reshape(-1, 2).tolist(), strict=True):
            right.setdefault(pair.task, []).extend((yes == 0, no == 1))
    return {task: round(float(np.mean(flags)), 3) for task, flags in sorted(right.items())}
