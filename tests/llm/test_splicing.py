from __future__ import annotations

import numpy as np
import pytest

from pargo_export.errors import InputError
from pargo_export.llm import MME_TEMPLATE, fill_template, splice

PROMPTS = [
    fill_template(MME_TEMPLATE, text)
    for text in ("Is it red?", "Is there a dog in the image?", "Is it a cat?")
]


def test_the_sequence_of_one_prompt(language_model, visual_tokens):
    """Begin of sequence, text before the image, visual tokens, text after it; each text tokenized on its own."""
    before, after = PROMPTS[0].split("<ImageHere>")
    embeddings, mask = splice(language_model, visual_tokens[:1], PROMPTS[:1])
    table = language_model.model.get_input_embeddings().weight.detach().numpy()
    tokenizer = language_model.tokenizer
    first = [tokenizer.convert_tokens_to_ids("<s>"), *tokenizer(before, add_special_tokens=False).input_ids]
    last = tokenizer(after, add_special_tokens=False).input_ids
    expected = np.concatenate((table[first], visual_tokens[0], table[last]))
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings[0], expected)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.ones((1, len(expected))))


def test_a_batch_is_padded_on_the_left(language_model, visual_tokens):
    """Each row is the sequence of its prompt alone, behind zeros that the mask leaves out."""
    embeddings, mask = splice(language_model, visual_tokens, PROMPTS)
    assert embeddings.shape == (*mask.shape, 80)
    lengths = mask.sum(1)
    assert len(set(lengths)) == 3
    assert max(lengths) == mask.shape[1]
    for row, prompt in enumerate(PROMPTS):
        alone, _ = splice(language_model, visual_tokens[row : row + 1], [prompt])
        padding = mask.shape[1] - alone.shape[1]
        np.testing.assert_array_equal(mask[row], [0] * padding + [1] * alone.shape[1])
        np.testing.assert_array_equal(embeddings[row, :padding], 0)
        np.testing.assert_array_equal(embeddings[row, padding:], alone[0])


def test_a_model_without_begin_of_sequence(language_model, visual_tokens, monkeypatch):
    """Where the tokenizer has no such token, the sequence begins with the text, or the image."""
    monkeypatch.setattr(language_model, "bos_token_id", None)
    embeddings, mask = splice(language_model, visual_tokens[:1], ["<ImageHere>"])
    np.testing.assert_array_equal(embeddings, visual_tokens[:1])
    assert mask.tolist() == [[1] * 5]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5, 64), "found a width of 64, expected 80"),
        ((2, 5, 80), "3 prompts and 2 images"),
        ((3, 80), r"found the shape \[3, 80\]"),
        ((3, 0, 80), r"found the shape \[3, 0, 80\]"),
    ],
)
def test_tokens_that_do_not_fit(language_model, shape, message):
    """Visual tokens of another width, number or rank are refused, with both numbers."""
    with pytest.raises(InputError, match=message):
        splice(language_model, np.zeros(shape, np.float32), PROMPTS)
