"""Options of commands that ask a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pargo_export.cli.arguments import FILE

__all__ = ["language_model_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--adapters", type=FILE, help="ParGo checkpoint with llm_model.* tensors, such as LoRA adapters."
    ),
    click.option(
        "--lora-alpha",
        type=float,
        help="Alpha of the adapters; by default from the JSON beside the checkpoint.",
    ),
    click.option(
        "--template",
        metavar="NAME|FILE",
        default="mme",
        show_default=True,
        help="Prompt: mme (yes or no), chat, plain, or a text file with <ImageHere> and {}.",
    ),
    click.option(
        "--max-new-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Length at most."
    ),
    click.option(
        "--llm-backend",
        type=click.Choice(("auto", "transformers", "onnxruntime")),
        default="auto",
        show_default=True,
        help="What runs the language model.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(("float32", "float16", "bfloat16")),
        default="float32",
        show_default=True,
        help="Of the language model.",
    ),
    click.option("--device", default="cpu", show_default=True, help="Of the language model: cpu, cuda."),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Execute Python files of --llm if its model needs them: they can do anything that you can do.",
    ),
)


def language_model_options(function: _Function) -> _Function:
    """Give a command the options of a language model, but for its directory and its search."""
    # Decorators apply from the last to the first.
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
