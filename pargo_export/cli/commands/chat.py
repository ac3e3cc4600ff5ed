"""`pargo-export chat`: ask a language model about a picture."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.language_model_arguments import language_model_options
from pargo_export.cli.report import Reporter
from pargo_export.errors import PargoExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from pargo_export.llm import Chat

__all__ = ["command"]


@click.command("chat", cls=PargoCommand, short_help="Ask a language model about a picture.")
@click.argument("bundle", type=FILE)
@click.argument("photo", type=FILE)
@click.argument("questions", metavar="[QUESTION]...", nargs=-1)
@click.option("--llm", type=FILE, required=True, help="Directory of the language model.")
@language_model_options
@click.option("--greedy", is_flag=True, help="One beam; the official evaluation has four.")
@click.option("--beams", type=click.IntRange(min=1), help="Beams; 4 by default.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print as it is generated; by default on a terminal, if greedy.",
)
@click.option("--variant", metavar="NAME", help="Graph to run; by default the best for this machine.")
@click.option("--backend", default="auto", show_default=True, help="What runs it; `doctor` lists them.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@pass_reporter
@click.pass_context
def command(
    context: click.Context,
    reporter: Reporter,
    bundle: Path,
    photo: Path,
    questions: tuple[str, ...],
    llm: Path,
    adapters: Path | None,
    lora_alpha: float | None,
    template: str,
    greedy: bool,
    beams: int | None,
    max_new_tokens: int,
    stream: bool | None,
    variant: str | None,
    backend: str,
    llm_backend: Literal["auto", "transformers", "onnxruntime"],
    dtype: str,
    device: str,
    threads: int | None,
    trust_remote_code: bool,
) -> None:
    """Ask the language model in DIR (--llm) QUESTIONs about PHOTO.

    BUNDLE makes the visual tokens, once for all questions. Without a QUESTION, on a terminal, questions are read line by
    line; an empty one ends. The language model is a directory of transformers, or an exported one, which needs no PyTorch.
    """
    if greedy and beams not in (None, 1):
        raise click.UsageError(f"found --greedy and --beams {beams}; choose one")
    num_beams = 1 if greedy else beams or 4
    is_loop = not questions
    if is_loop and (reporter.as_json or not _is_terminal(sys.stdin)):
        raise click.UsageError(
            "Missing argument 'QUESTION'; only on a terminal, without --json, it is asked for."
        )
    if stream and reporter.as_json:
        raise click.UsageError("found --stream and --json; choose one")
    if stream is None:
        stream = num_beams == 1 and not reporter.as_json and _is_terminal(sys.stdout)
    from pargo_export.llm import Chat, GenerationSettings, open_language_model, read_template
    from pargo_export.runtime import Runtime

    settings = GenerationSettings(max_new_tokens=max_new_tokens, num_beams=num_beams)
    text = read_template(template)
    reporter.step(f"opening {bundle}")
    runtime = context.with_resource(Runtime.open(bundle, backend=backend, variant=variant, threads=threads))
    reporter.step(f"opening {llm}")
    language_model = context.with_resource(
        open_language_model(
            llm,
            backend=llm_backend,
            adapters=adapters,
            lora_alpha=lora_alpha,
            dtype=dtype,
            device=device,
            threads=threads,
            trust_remote_code=trust_remote_code,
        )
    )
    chat = Chat(runtime, language_model, template=text, settings=settings)
    reporter.step(f"encoding {photo}")
    start = time.perf_counter()
    visual_tokens = chat.encode(photo)
    encoded = time.perf_counter()
    if is_loop:
        reporter.__exit__()  # no spinner beside what is typed
        _converse(reporter, chat, visual_tokens, stream=stream)
        return
    if stream:
        reporter.__exit__()
        for question in questions:
            _print_stream(chat, visual_tokens, question)
        return
    reporter.step("answering")
    answers = chat.answer(visual_tokens, questions)
    seconds = {"encode": encoded - start, "generate": time.perf_counter() - encoded}
    values = {
        "bundle": str(bundle),
        "variant": runtime.variant.name,
        "backend": runtime.backend,
        "llm": str(llm),
        "image": str(photo),
        "template": text,
        "settings": asdict(settings),
        "answers": [
            {"question": question, "answer": answer}
            for question, answer in zip(questions, answers, strict=True)
        ],
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
    }
    reporter.result(values, lambda: _render(answers))


def _render(answers: list[str]) -> Iterator[RenderableType]:
    from rich.text import Text

    yield from (Text(answer, overflow="ignore") for answer in answers)  # printed as it is, not wrapped


def _converse(reporter: Reporter, chat: Chat, visual_tokens: NDArray[np.float32], *, stream: bool) -> None:
    while True:
        try:
            question = click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True)
        except click.Abort:  # the end of the input, or an interruption at the prompt
            click.echo(err=True)
            return
        if not question.strip():
            return
        try:
            if stream:
                _print_stream(chat, visual_tokens, question)
            else:
                click.echo(chat.answer(visual_tokens, [question])[0])
        except PargoExportError as error:  # the next question may be a better one
            reporter.error(str(error))


def _print_stream(chat: Chat, visual_tokens: NDArray[np.float32], question: str) -> None:
    for piece in chat.stream(visual_tokens, question):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


def _is_terminal(stream: object) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())
