"""The two stages of the paper: captions align the projector with the language model, then questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import Corpus
from curriculum import Curriculum
from numpy.typing import NDArray
from packing import PackedModel, Text, pack
from texts import Texts
from torch import Tensor
from training import Log, Schedule, Stage, run_stage
from word_loss import WordLoss, caption_words

__all__ = ["Data", "Plan", "answer_accuracy", "run_stages"]

_CHECK_IMAGES = 64


@dataclass(frozen=True)
class Plan:
    """How the projector and the language model are trained.

    Attributes:
        captions: Schedule of stage 1.
        questions: Schedule of stage 2.
        steps_per_thing: Steps of stage 1 until images with one thing more come in.
        batch: Images of one step.
        questions_per_image: Questions that share the visual tokens of an image in stage 2, beside one caption: without
            captions the model forgets within a hundred steps what stage 1 taught it.
        text_length: Tokens of a prompt and its answer; longer ones are cut.
        low_precision: Compute matrix products in bfloat16.
    """

    captions: Schedule
    questions: Schedule
    steps_per_thing: int = 60
    batch: int = 12
    questions_per_image: int = 6
    text_length: int = 92
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
        stop_after: Stop after this many steps over both stages: an interruption, for tests.
    """
    texts, corpus = Texts(tokenizer), train.corpus
    described = [texts.tokens(f" {captions[0]}") for captions in corpus.captions]
    together = _Together(model, WordLoss(caption_words(described)))

    def loss(chosen: NDArray[np.int64], rows: list[list[Text]]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.low_precision):
            return together(
                train.image_features(chosen),
                pack(rows, plan.text_length, tokenizer.pad_token_id),
                together.words.targets([described[index] for index in chosen]),
            )

    rising = Curriculum(corpus.scenes, plan.steps_per_thing)
    everything = Curriculum(corpus.scenes, 0)

    def caption_loss(step: int) -> Tensor:
        chosen = rising.choose(np.random.default_rng([seed, 1, step]), step, plan.batch)
        return loss(chosen, [texts.captions(corpus.captions[index]) for index in chosen])

    def question_loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 2, step])
        chosen = everything.choose(rng, step, plan.batch)
        rows = []
        for index in chosen:
            caption = texts.captions(corpus.captions[index])[int(rng.integers(2))]
            asked = texts.questions(rng, corpus.scenes[index], corpus.task(index), plan.questions_per_image)
            rows.append([caption, *asked])
        return loss(chosen, rows)

    def check() -> dict[str, float]:
        return answer_accuracy(model, texts, tokenizer.pad_token_id, held_out)

    captions = Stage("captions", together, caption_loss, plan.captions)
    questions = Stage("questions", together, question_loss, plan.questions, check)
    done = run_stage(captions, directory, log, resume=resume, stop_after=stop_after)
    left = None if stop_after is None else stop_after - done
    run_stage(questions, directory, log, resume=resume, stop_after=left)


class _Together(torch.nn.Module):
    """The model and its two losses, so that one checkpoint holds both."""

    def __init__(self, model: PackedModel, words: WordLoss) -> None:
        super().__init__()
        self.model, self.words = model, words

    def forward(self, image_features: Tensor, packed: Any, said: Tensor) -> Tensor:
        visual, loss = self.model(image_features, packed)
        embeddings = self.model.language_model.get_input_embeddings().weight
        total: Tensor = loss + self.words(visual, embeddings, said)
        return total


@torch.no_grad()
def answer_accuracy(model: PackedModel, texts: Texts, padding: int, data: Data) -> dict[str, float]:
    """Return for each task the share of answers whose every token is the likeliest: those that greedy decoding gives.

    A quick look during training; the scores in reports come from generated answers.
    """
    right: dict[str, list[bool]] = {}
    for index in range(min(len(data.corpus), _CHECK_IMAGES)):
        pairs = data.corpus.pairs[index]
        asked = [
            texts.answered(question, answer)
            for pair in pairs
            for question, answer in zip((pair.yes, pair.no), pair.answers, strict=True)
        ]
        packed = pack([[(prompt, answer, 0.0) for prompt, answer, _ in asked]], None, padding)
        logits, targets = model.logits(data.image_features([index]), packed)
        found = (logits.argmax(-1) == targets).split([len(answer) for _, answer, _ in asked])
        for number, tokens in enumerate(found):
            right.setdefault(pairs[number // 2].task, []).append(bool(tokens.all()))
    return {task: round(float(np.mean(flags)), 3) for task, flags in sorted(right.items())}
