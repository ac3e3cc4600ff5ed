"""What needs no model: settings, templates, answers."""

from __future__ import annotations

import pytest

from pargo_export.errors import ConfigError, InputError
from pargo_export.llm import (
    GREEDY,
    IMAGE_PLACEHOLDER,
    MME_TEMPLATE,
    OFFICIAL,
    TEMPLATES,
    GenerationSettings,
    check_template,
    clean_answer,
    fill_template,
    read_template,
)
from pargo_export.llm.prompts import split_prompt


def test_the_official_settings():
    """The settings are those of the official evaluation script."""
    assert GenerationSettings(100, 4, 1.0, 1.0, 1) == OFFICIAL
    assert GenerationSettings(num_beams=1) == GREEDY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_beams": 0}, "num_beams: found 0, expected at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
        ({"min_new_tokens": -1}, "min_new_tokens: found -1"),
        ({"max_new_tokens": 2, "min_new_tokens": 3}, "expected at most max_new_tokens, 2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: found 0.0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty: found nan"),
    ],
)
def test_settings_out_of_range(values, message):
    """A setting out of range is named."""
    with pytest.raises(ConfigError, match=message):
        GenerationSettings(**values)


def test_the_official_template():
    """The MME template is that of the official configuration, word for word."""
    prompt = fill_template(MME_TEMPLATE, "Is it red? Please answer yes or no.")
    assert prompt == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
        "polite answers to the user's questions. USER: <Img><ImageHere></Img> Is it red? Please answer yes or no.\n"
        "Answer the question using a single word(Yes or No)\nASSISTANT: "
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_have_one_place_for_each(name):
    """Every template is found by its name and has one place for the image and one for the question."""
    assert read_template(name) == check_template(TEMPLATES[name])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no image {}", "<ImageHere> 0 times"),
        ("<ImageHere> <ImageHere> {}", "<ImageHere> 2 times"),
        ("<ImageHere> no question", r"\{\} 0 times"),
        ("<ImageHere> {} {}", r"\{\} 2 times"),
    ],
)
def test_templates_without_a_place(template, message):
    """A template that has not one place each is refused, with what was counted."""
    with pytest.raises(ConfigError, match=message):
        check_template(template)


def test_templates_of_files(tmp_path):
    """A file is a template, without the newline that editors put at its end; what is neither is refused."""
    path = tmp_path / "template.txt"
    path.write_text("<ImageHere>\n{}\n")
    assert read_template(str(path)) == "<ImageHere>\n{}"
    with pytest.raises(ConfigError, match=r"neither a name \(mme, chat, plain\) nor a text file"):
        read_template(str(tmp_path / "nowhere.txt"))
    with pytest.raises(ConfigError, match="neither"):
        read_template(str(tmp_path))


def test_questions_are_taken_as_they_are():
    """Braces of a question mean nothing; an empty one, or one with the place of an image, is refused."""
    assert fill_template("<ImageHere>{}!", "a {} {x}?") == "<ImageHere>a {} {x}?!"
    for question in ("", " \n"):
        with pytest.raises(InputError, match="empty"):
            fill_template(MME_TEMPLATE, question)
    with pytest.raises(InputError, match="holds <ImageHere>"):
        fill_template(MME_TEMPLATE, f"What is {IMAGE_PLACEHOLDER}?")


@pytest.mark.parametrize("count", [0, 2])
def test_prompts_have_one_image(count):
    """A prompt without an image, or with two, is refused."""
    with pytest.raises(InputError, match=f"found <ImageHere> {count} times"):
        split_prompt("a" + IMAGE_PLACEHOLDER * count)
    assert split_prompt("a<ImageHere>b") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "Yes"),
        (" Yes</s></s><s>", "Yes"),
        ("<s> No\n", "No"),
        ("[INST] red? [/INST] no [/INST] Yes ", "Yes"),
        ("Yes ###Human: [/INST]", ""),  # the last [/INST] is looked for before the cut at ###
        ("a</s>b [/INST] c", "a"),  # and the end before that
        ("<<s>/s>Yes", "</s>Yes"),  # the end is not looked for again
        ("Yes\nit\tis\r", "Yes it is"),
        (" ### No", ""),
        ("", ""),
    ],
)
def test_clean_answer(text, answer):
    """Each step of the official post-processing, in its order."""
    assert clean_answer(text) == answer
