"""A byte-level BPE tokenizer for the small language model, made from the texts it will see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from questions import ENDING
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pargo_export.llm import CHAT_TEMPLATE, MME_TEMPLATE

__all__ = ["make_tokenizer"]

_BOS, _EOS = "<s>", "</s>"
_SIZE = 640
_PHRASES = (
    "Is there only one",
    "Is there a",
    "Are there",
    "Is the answer to the arithmetic question in the image",
    "Is the",
    " in the image?",
    " in this image?",
    " half of the image?",
    " on the left side of the",
    " on the right side of the",
    " above the",
    " below the",
)


def make_tokenizer(texts: Iterable[str], size: int = _SIZE) -> Any:
    """Train a tokenizer.

    Every byte has a token, so that no text is unknown. Digits stay single. The constant parts of the two templates and
    frequent turns of phrase are one token each: spelled out they would be most of every sequence, which a model of this
    size would pay for in training time and gain nothing from.

    Args:
        texts: What to learn merges from.
        size: Tokens at most, the parts of the templates not counted.

    Returns:
        A `PreTrainedTokenizerFast` with `<s>` and `</s>`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.removesuffix(ENDING) for text in texts), trainer)
    tokenizer.add_tokens([AddedToken(part, normalized=False) for part in _constant_parts()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_EOS,
        clean_up_tokenization_spaces=False,
    )


def _constant_parts() -> list[str]:
    """Return the text before the image, what follows the question in either template, and frequent turns of phrase."""
    before, after = MME_TEMPLATE.split("<ImageHere>")
    opening, ending = after.split("{}")
    return [before, opening, ENDING, ending, CHAT_TEMPLATE.split("{}")[1], *_PHRASES]
