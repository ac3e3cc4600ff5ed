"""Put visual tokens into prompts, as the official code does (`context_embeds` in `eval/init_models.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import InputError
from pargo_export.llm.language_model import LanguageModel
from pargo_export.llm.prompts import split_prompt

__all__ = ["check_visual_tokens", "splice"]


def check_visual_tokens(visual_tokens: NDArray[np.float32], language_model: LanguageModel) -> None:
    """Refuse visual tokens that do not fit a language model.

    Raises:
        InputError: They are not `[B, Q, C]`, or C is not the width of the model's embeddings.
    """
    if visual_tokens.ndim != 3 or 0 in visual_tokens.shape:
        raise InputError(
            f"visual tokens: found the shape {list(visual_tokens.shape)}, expected [B, Q, C], none of them 0"
        )
    width = visual_tokens.shape[2]
    if width != language_model.hidden_size:
        raise InputError(
            f"visual tokens: found a width of {width}, expected {language_model.hidden_size}, that of the embeddings of "
            f"{language_model.name}; take the language model that the projector was trained with"
        )


def splice(
    language_model: LanguageModel, visual_tokens: NDArray[np.float32], prompts: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Put the visual tokens of each image into its prompt.

    A sequence is: begin of sequence, tokens of the text before the image, visual tokens, tokens of the text after it.
    Both texts are tokenized on their own, without special tokens. A batch is padded on the left with zeros.

    Args:
        language_model: Whose tokens and embeddings.
        visual_tokens: float32 `[B, Q, C]`.
        prompts: B texts with `<ImageHere>` once each.

    Returns:
        Embeddings float32 `[B, L, C]` and attention mask int64 `[B, L]`, 1 at real positions.

    Raises:
        InputError: Their numbers differ, a prompt has not one place for the image, or the width is not that of the
            language model.
    """
    check_visual_tokens(visual_tokens, language_model)
    if len(prompts) != len(visual_tokens):
        raise InputError(
            f"found {len(prompts)} prompts and {len(visual_tokens)} images; expected one prompt an image"
        )
    begin = [] if language_model.bos_token_id is None else [language_model.bos_token_id]
    embedded: dict[tuple[int, ...], NDArray[np.float32]] = {}  # a template's first part is common to all

    def embed(tokens: list[int]) -> NDArray[np.float32]:
        key = tuple(tokens)
        if key not in embedded:
            embedded[key] = (
                language_model.embed(tokens)
                if tokens
                else np.zeros((0, language_model.hidden_size), np.float32)
            )
        return embedded[key]

    sequences = []
    for image, prompt in zip(visual_tokens, prompts, strict=True):
        before, after = split_prompt(prompt)
        parts = (
            embed(begin + language_model.tokenize(before)),
            image,
            embed(language_model.tokenize(after)),
        )
        sequences.append(np.concatenate(parts, dtype=np.float32))
    length = max(map(len, sequences))
    embeddings = np.zeros((len(sequences), length, language_model.hidden_size), np.float32)
    attention_mask = np.zeros((len(sequences), length), np.int64)
    for row, sequence in enumerate(sequences):
        embeddings[row, length - len(sequence) :] = sequence
        attention_mask[row, length - len(sequence) :] = 1
    return embeddings, attention_mask
