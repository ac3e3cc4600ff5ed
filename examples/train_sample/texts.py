"""Captions, prompts and answers as tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from captions import CAPTION_QUESTION, INVENTORY_QUESTION
from packing import Text
from questions import question_pair
from scenes import TASKS, Scene

from pargo_export.llm import CHAT_TEMPLATE, MME_TEMPLATE

__all__ = ["Texts", "prefix_tokens", "prompt_tokens"]

# Of a question's own tokens in the loss: half of the questions are true of their image.
_PROMPT_WEIGHT = 0.1


class Texts:
    """What is said about images; each text is tokenized once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self._end = [tokenizer.eos_token_id]

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]

    def captions(self, captions: tuple[str, str]) -> list[Text]:
        """Return both captions of an image, each after its prompt."""
        questions = (CAPTION_QUESTION, INVENTORY_QUESTION)
        return [
            self._asked(CHAT_TEMPLATE, question, caption, 0.0)
            for question, caption in zip(questions, captions, strict=True)
        ]

    def questions(self, rng: np.random.Generator, scene: Scene, task: str, count: int) -> list[Text]:
        """Return `count` questions about a scene that was made for `task`, a Yes and a No in turn.

        They are made anew each time, so that hardly any comes twice. Both of a pair come together: their difference is
        what is to be learnt, and all else cancels in the gradient.
        """
        asked: list[Text] = []
        while len(asked) < count:
            # Half the time for the task of the scene, since some tasks have no other scenes. None else is counted: "only
            # one" would be right without looking.
            other = TASKS[int(rng.integers(len(TASKS)))]
            chosen = task if other == "count" or rng.random() < 0.5 else other
            pair = question_pair(rng, scene, chosen)
            if pair is not None:
                for question, answer in zip((pair.yes, pair.no), pair.answers, strict=True):
                    asked.append(self.answered(question, answer))
        return asked[:count]

    def answered(self, question: str, answer: str) -> Text:
        """Return a question of MME and its answer."""
        return self._asked(MME_TEMPLATE, question, answer, _PROMPT_WEIGHT)

    def _asked(self, template: str, question: str, answer: str, prompt_weight: float) -> Text:
        # With a space before it, a word of an answer is the token that it is within a caption.
        prompt = prompt_tokens(self._tokenizer, template, question)
        return prompt, self.tokens(f" {answer}") + self._end, prompt_weight


def prompt_tokens(tokenizer: Any, template: str, question: str) -> list[int]:
    """Return the tokens of a filled template after the image."""
    after = template.split("<ImageHere>")[1].replace("{}", question)
    tokens: list[int] = tokenizer.encode(after, add_special_tokens=False)
    return tokens


def prefix_tokens(tokenizer: Any) -> list[int]:
    """Return `<s>` and the tokens before the image; both templates begin alike."""
    before = MME_TEMPLATE.split("<ImageHere>")[0]
    return [tokenizer.bos_token_id, *tokenizer.encode(before, add_special_tokens=False)]
