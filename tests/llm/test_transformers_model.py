from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from language_models import write_llama

from pargo_export.errors import BackendError, ConfigError
from pargo_export.llm import (
    GREEDY,
    MME_TEMPLATE,
    OFFICIAL,
    LanguageModel,
    fill_template,
    open_language_model,
    splice,
)

SHORT = replace(OFFICIAL, max_new_tokens=9)
GREEDY_SHORT = replace(SHORT, num_beams=1)
PENALIZED = replace(GREEDY_SHORT, repetition_penalty=5.0)
QUESTIONS = ("Is it red?", "Is there a dog in the image? Please answer yes or no.", "a")


@pytest.fixture(scope="module")
def spliced(language_model, visual_tokens):
    """Return a batch with left padding."""
    return splice(language_model, visual_tokens, [fill_template(MME_TEMPLATE, text) for text in QUESTIONS])


def test_it_is_a_language_model(language_model):
    """The object keeps the protocol, and knows its width and its begin of sequence."""
    assert isinstance(language_model, LanguageModel)
    assert (language_model.hidden_size, language_model.bos_token_id) == (80, 0)
    assert language_model.tokenize("") == []
    assert language_model.embed([]).shape == (0, 80)


@pytest.mark.parametrize("settings", [SHORT, GREEDY_SHORT])
def test_generation_is_that_of_transformers(language_model, spliced, settings):
    """The text is that of `generate` called with the arguments of the official script."""
    embeddings, mask = (torch.from_numpy(array) for array in spliced)
    with torch.inference_mode():
        ids = language_model.model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=1,
            num_beams=settings.num_beams,
            do_sample=False,
            repetition_penalty=1.0,
            length_penalty=1.0,
            eos_token_id=1,
            pad_token_id=2,
        )
    expected = [text.split("</s>")[0] for text in language_model.tokenizer.batch_decode(ids)]
    assert language_model.generate(*spliced, settings) == expected
    assert len(set(expected)) == 3


def test_beams_and_penalties_matter(language_model, spliced):
    """The settings reach the search: each changes an answer."""
    greedy = replace(GREEDY, max_new_tokens=30)
    others = (
        replace(greedy, num_beams=4),
        replace(greedy, repetition_penalty=5.0),
        replace(greedy, max_new_tokens=3),
    )
    answer = language_model.generate(*spliced, greedy)
    assert all(language_model.generate(*spliced, other) != answer for other in others)


@pytest.mark.parametrize("settings", [SHORT, GREEDY_SHORT, PENALIZED, replace(SHORT, repetition_penalty=2.0)])
def test_left_padding_changes_nothing(language_model, visual_tokens, spliced, settings):
    """A batch has the answers that its questions have alone."""
    together = language_model.generate(*spliced, settings)
    for row, question in enumerate(QUESTIONS):
        alone = splice(language_model, visual_tokens[row : row + 1], [fill_template(MME_TEMPLATE, question)])
        assert language_model.generate(*alone, settings) == together[row : row + 1]


def test_left_padding_changes_no_logits(language_model, spliced):
    """The logits of the last position are those of the sequence alone, up to the order of sums."""
    embeddings, mask = (torch.from_numpy(array) for array in spliced)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        model = language_model.model
        together = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions).logits[:, -1]
        for row in range(3):
            alone = model(inputs_embeds=embeddings[row : row + 1, mask[row] == 1]).logits[0, -1]
            torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=0)


def test_streaming(language_model, spliced):
    """The pieces of a stream are the text of greedy search, and no thread is left."""
    embeddings = spliced[0][:1][:, spliced[1][0] == 1]
    pieces = list(language_model.stream(embeddings, replace(GREEDY, max_new_tokens=30)))
    text = language_model.generate(
        embeddings, np.ones(embeddings.shape[:2], np.int64), replace(GREEDY, max_new_tokens=30)
    )
    assert "".join(pieces) == text[0]
    assert len(pieces) > 1
    assert _stream_threads() == []


def test_a_stream_that_is_closed_early(language_model, spliced, monkeypatch):
    """Closing the iterator ends the generation, long before its last token."""
    steps = []
    forward = language_model.model.forward
    monkeypatch.setattr(
        language_model.model,
        "forward",
        lambda *args, **kwargs: (steps.append(1), forward(*args, **kwargs))[1],
    )
    stream = language_model.stream(spliced[0][:1], replace(GREEDY, max_new_tokens=1000, min_new_tokens=1000))
    next(stream)
    assert len(_stream_threads()) == 1
    stream.close()
    assert _stream_threads() == []
    assert len(steps) < 500


def test_an_error_while_streaming(language_model):
    """What the generating thread raises reaches the caller."""
    with pytest.raises(BackendError, match=r"language model .* failed: .*64"):
        list(language_model.stream(np.zeros((1, 3, 64), np.float32), GREEDY))
    assert _stream_threads() == []


def test_beams_do_not_stream(language_model, spliced):
    """Several beams are refused at the call, not at the first piece."""
    with pytest.raises(ConfigError, match="found 4 beams, expected greedy"):
        language_model.stream(spliced[0][:1], OFFICIAL)


def test_generation_ends_at_the_end_of_sequence(llama_directory, visual_tokens, tmp_path):
    """Every token of generation_config.json that ends a sequence does, and is not part of the text; never the first."""
    with open_language_model(llama_directory) as opened:
        spliced = splice(opened, visual_tokens[:1], ["<ImageHere>x"])
        ids = opened._generate(*spliced, replace(GREEDY, max_new_tokens=6))[0].tolist()
        opened._end_ids = frozenset({1, ids[2]})
        assert ids[2] not in ids[:2]
        assert opened.generate(*spliced, GREEDY) == [opened.tokenizer.decode(ids[:2])]
        opened._end_ids = frozenset({ids[0]})
        first = opened._generate(*spliced, replace(GREEDY, max_new_tokens=1))[0].tolist()
        assert first != ids[:1]
        may_be_empty = opened.generate(*spliced, replace(GREEDY, max_new_tokens=1, min_new_tokens=0))
        assert may_be_empty == [""]
    directory = write_llama(tmp_path / "ends", vocab_size=512, num_hidden_layers=1)
    (directory / "generation_config.json").write_text(
        '{"eos_token_id": [1, 7], "do_sample": true, "top_p": 0.4}'
    )
    with open_language_model(directory) as opened:
        assert opened._end_ids == {1, 7}


def test_half_precision(llama_directory, language_model, visual_tokens):
    """In bfloat16 the weights are halved, and what comes out is still float32 and text."""
    with open_language_model(llama_directory, dtype="bfloat16") as opened:
        assert {parameter.dtype for parameter in opened.model.parameters()} == {torch.bfloat16}
        embedded = opened.embed([5, 6])
        assert embedded.dtype == np.float32
        np.testing.assert_allclose(embedded, language_model.embed([5, 6]), rtol=2**-8)
        spliced = splice(opened, visual_tokens[:1], ["<ImageHere>"])
        assert opened.generate(*spliced, replace(GREEDY, max_new_tokens=2))[0]


def test_threads_are_put_back(llama_directory, visual_tokens, monkeypatch):
    """The number of threads holds during a call, and is what it was afterwards."""
    seen = []
    with open_language_model(llama_directory, threads=2) as opened:
        before = torch.get_num_threads()
        forward = opened.model.forward
        monkeypatch.setattr(
            opened.model,
            "forward",
            lambda *args, **kwargs: (seen.append(torch.get_num_threads()), forward(*args, **kwargs))[1],
        )
        opened.generate(
            *splice(opened, visual_tokens[:1], ["<ImageHere>"]), replace(GREEDY, max_new_tokens=1)
        )
        assert (seen, torch.get_num_threads(), before) == ([2], before, 1)


def test_a_closed_model(llama_directory):
    """After closing, which may be done twice, every call says that it is closed."""
    opened = open_language_model(llama_directory)
    opened.close()
    opened.close()
    calls = (
        lambda: opened.embed([1]),
        lambda: opened.generate(np.zeros((1, 1, 80), np.float32), np.ones((1, 1), np.int64), GREEDY),
        lambda: opened.stream(np.zeros((1, 1, 80), np.float32), GREEDY),
    )
    for call in calls:
        with pytest.raises(BackendError, match="is closed"):
            call()


def _stream_threads():
    return [thread for thread in threading.enumerate() if thread.name == "pargo-llm-stream"]
