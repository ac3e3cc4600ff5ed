from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from language_models import write_llama

from pargo_export.assets import PHOTOGRAPH
from pargo_export.errors import ConfigError, InputError
from pargo_export.llm import (
    CHAT_TEMPLATE,
    GREEDY,
    OFFICIAL,
    Chat,
    clean_answer,
    fill_template,
    open_language_model,
    splice,
)
from pargo_export.runtime import Runtime

SHORT = replace(GREEDY, max_new_tokens=6)
QUESTIONS = ["Is it red?", "Is there a dog in the image?"]


@pytest.fixture(scope="module")
def runtime(exported_bundle):
    """Return a runtime that makes visual tokens of width 80."""
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as opened:
        yield opened


def test_an_answer_is_cleaned_generation_on_the_spliced_prompt(language_model, visual_tokens):
    """`answer` is splice, generate, clean, with the template and settings of the chat."""
    settings = replace(OFFICIAL, max_new_tokens=5)
    chat = Chat(None, language_model, template=CHAT_TEMPLATE, settings=settings)
    prompts = [fill_template(CHAT_TEMPLATE, question) for question in QUESTIONS]
    texts = language_model.generate(*splice(language_model, visual_tokens[:2], prompts), settings)
    answers = chat.answer(visual_tokens[:2], QUESTIONS)
    assert answers == [clean_answer(text) for text in texts]
    assert answers != Chat(None, language_model, settings=settings).answer(visual_tokens[:2], QUESTIONS)
    assert chat.answer(visual_tokens[:0], []) == []


def test_raw_text_is_cleaned(language_model, visual_tokens, monkeypatch):
    """What the language model wrote goes through the official post-processing."""
    chat = Chat(None, language_model)
    monkeypatch.setattr(language_model, "generate", lambda *_: ["<s> [/INST] Yes\n### No"])
    assert chat.answer(visual_tokens[:1], ["x"]) == ["Yes"]


def test_asking_goes_through_the_runtime(runtime, language_model):
    """`ask` encodes with the runtime; one image serves several questions and is encoded once."""
    chat = Chat(runtime, language_model, settings=SHORT)
    visual_tokens = runtime.encode(PHOTOGRAPH)
    expected = chat.answer(visual_tokens, QUESTIONS)
    seen = []
    runtime.subscribe(lambda event: seen.append(event.num_images))
    assert chat.ask(PHOTOGRAPH, QUESTIONS) == expected
    assert seen == [1]
    assert chat.ask([PHOTOGRAPH, PHOTOGRAPH], QUESTIONS) == expected
    assert seen == [1, 2]
    other = chat.ask([np.zeros((60, 60, 3), np.uint8)], QUESTIONS)
    assert other != expected


def test_streaming_about_a_photograph(runtime, language_model):
    """The pieces of a stream are the text about the picture, or about its visual tokens."""
    chat = Chat(runtime, language_model, settings=SHORT)
    pieces = list(chat.stream(PHOTOGRAPH, QUESTIONS[0]))
    assert clean_answer("".join(pieces)) == chat.ask([PHOTOGRAPH], QUESTIONS[:1])[0]
    assert list(chat.stream(chat.encode(PHOTOGRAPH), QUESTIONS[0])) == pieces
    with pytest.raises(ConfigError, match="found 4 beams, expected greedy search"):
        Chat(runtime, language_model).stream(PHOTOGRAPH, QUESTIONS[0])
    with pytest.raises(InputError, match="found 2 images, expected one"):
        chat.stream([PHOTOGRAPH, PHOTOGRAPH], QUESTIONS[0])


def test_what_does_not_fit(runtime, language_model, visual_tokens):
    """Empty questions and wrong numbers are refused before anything is computed."""
    chat = Chat(runtime, language_model)
    with pytest.raises(InputError, match="the question is empty"):
        chat.ask("nowhere.jpg", ["Is it red?", " "])
    with pytest.raises(InputError, match="found 2 questions and 3 images"):
        chat.answer(visual_tokens, QUESTIONS)
    with pytest.raises(InputError, match="no runtime"):
        Chat(None, language_model).ask(PHOTOGRAPH, QUESTIONS)
    with pytest.raises(ConfigError, match="<ImageHere> 0 times"):
        Chat(None, language_model, template="{}")


def test_another_width(runtime, visual_tokens, tmp_path):
    """A language model of another width is refused with both numbers: with the runtime at once, else at the tokens."""
    with open_language_model(write_llama(tmp_path, hidden_size=64, num_hidden_layers=1)) as narrow:
        with pytest.raises(ConfigError, match=r"width 80, but the embeddings of .* have 64"):
            Chat(runtime, narrow)
        with pytest.raises(InputError, match="width of 80, expected 64"):
            Chat(None, narrow).answer(visual_tokens[:1], ["x"])
