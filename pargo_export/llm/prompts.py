"""Templates of prompts: where the image and the question stand in the text."""

from __future__ import annotations

from pathlib import Path

from pargo_export.errors import ConfigError, InputError

__all__ = [
    "CHAT_TEMPLATE",
    "IMAGE_PLACEHOLDER",
    "MME_TEMPLATE",
    "PLAIN_TEMPLATE",
    "TEMPLATES",
    "check_template",
    "fill_template",
    "read_template",
    "split_prompt",
]

IMAGE_PLACEHOLDER = "<ImageHere>"
_QUESTION = "{}"
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: "
)
# Word for word the official `configs/MMEBench_interLM2-7B.json`, the space at the end included.
MME_TEMPLATE = (
    _VICUNA + "<Img><ImageHere></Img> {}\nAnswer the question using a single word(Yes or No)\nASSISTANT: "
)
# The same without the request for one word.
CHAT_TEMPLATE = _VICUNA + "<Img><ImageHere></Img> {}\nASSISTANT: "
PLAIN_TEMPLATE = "<Img><ImageHere></Img> {}"
TEMPLATES = {"mme": MME_TEMPLATE, "chat": CHAT_TEMPLATE, "plain": PLAIN_TEMPLATE}


def check_template(template: str) -> str:
    """Return `template` if it has one place for the image and one for the question.

    Raises:
        ConfigError: It has none or several of either.
    """
    for mark, meaning in ((IMAGE_PLACEHOLDER, "the image"), (_QUESTION, "the question")):
        if template.count(mark) != 1:
            raise ConfigError(
                f"template: found {mark} {template.count(mark)} times, expected once, where {meaning} belongs; "
                f"the template is {template!r}"
            )
    return template


def read_template(name: str) -> str:
    """Return a template by its name, or the content of a text file.

    A newline at the end of a file is dropped: editors add it.

    Raises:
        ConfigError: There is no such template and no such file, or it has not one place for image and question each.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    try:
        return check_template(Path(name).read_text("utf-8").removesuffix("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"template: found {name!r}, which is neither a name ({', '.join(TEMPLATES)}) nor a text file: {error}"
        ) from error


def fill_template(template: str, question: str) -> str:
    """Put a question into a template; the image stays a placeholder.

    Raises:
        InputError: The question is empty, or holds the placeholder of the image itself.
    """
    if not question.strip():
        raise InputError("the question is empty; ask something")
    if IMAGE_PLACEHOLDER in question:
        raise InputError(
            f"the question holds {IMAGE_PLACEHOLDER}, which marks the place of the image in the template; "
            "leave it out"
        )
    return template.replace(_QUESTION, question)


def split_prompt(prompt: str) -> tuple[str, str]:
    """Return the text before and after the image.

    Raises:
        InputError: The image has no place, or several.
    """
    parts = prompt.split(IMAGE_PLACEHOLDER)
    if len(parts) != 2:
        raise InputError(
            f"prompt: found {IMAGE_PLACEHOLDER} {len(parts) - 1} times, expected once, where the image belongs: {prompt!r}"
        )
    return parts[0], parts[1]
