"""`pargo-export eval`: what a bundle is worth on a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pargo_export.cli.arguments import FILE, parse_names
from pargo_export.cli.command import PargoCommand, command_line, pass_reporter
from pargo_export.cli.language_model_arguments import language_model_options
from pargo_export.cli.report import Reporter
from pargo_export.errors import ConfigError

if TYPE_CHECKING:
    from pargo_export.evaluation.mme.records import MmeEvaluation

__all__ = ["command"]

# What has no meaning with --score-only.
_ANSWERING = (
    "bundle",
    "llm",
    "data",
    "checkpoint",
    "adapters",
    "variants",
    "tasks",
    "limit",
    "resume",
    "force",
)


@click.group(
    "eval",
    short_help="Evaluate a bundle on a benchmark.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command in it takes --json, -v, --verbose, -q, --quiet and --debug too.",
)
def command() -> None:
    """Evaluate a bundle on a benchmark, through a language model."""


@command.command("mme", cls=PargoCommand, short_help="Answer and score MME.")
@click.argument("bundle", type=FILE, required=False)
@click.option("--bundle", "bundle_option", type=FILE, help="The same as BUNDLE.")
@click.option("--llm", type=FILE, help="Directory of the language model.")
@click.option("--data", type=FILE, help="Folder of MME, or of data in its layout.")
@click.option(
    "--variants",
    metavar="NAME,...",
    callback=parse_names,
    help="Graphs, each NAME or NAME@BACKEND; by default all that run here.",
)
@click.option(
    "--baseline",
    metavar="NAME|DIR",
    help="What the others are compared with; by default pytorch, else the first. With --score-only: results.",
)
@click.option(
    "--checkpoint", type=FILE, help="Checkpoint of the bundle: adds the PyTorch reference, float32."
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="What runs the graphs; emulated: FP8 and BF16 in float32 products.",
)
@click.option("--tasks", metavar="NAME,...", callback=parse_names, help="Tasks; by default all there are.")
@click.option("--limit", type=click.IntRange(min=1), help="Images of each task at most.")
@click.option(
    "--skip-missing", is_flag=True, help="Leave out images that are missing, as the official code does."
)
@click.option(
    "--results",
    type=FILE,
    default="mme-results",
    show_default=True,
    help="Folder for the answers, RESULTS/VARIANT/TASK.txt.",
)
@click.option("--resume", is_flag=True, help="Go on with answers that are there.")
@click.option("--force", is_flag=True, help="Replace answers that are there.")
@language_model_options
@click.option("--beams", type=click.IntRange(min=1), default=4, show_default=True, help="1 is greedy search.")
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Images at a time.",
)
@click.option(
    "--token-images",
    "num_token_images",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Images on which tokens and times are compared.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--score-only", type=FILE, metavar="RESULTS", help="Only score this folder of answers.")
@click.option(
    "--strict-official",
    is_flag=True,
    help="Read the answers just as the official calculator does; with --score-only.",
)
@click.option("-o", "--output", type=FILE, help="JSON file for the result.")
@click.option("--html", type=FILE, help="HTML file for a report; needs the extra 'report'.")
@pass_reporter
def mme(
    reporter: Reporter,
    /,
    bundle: Path | None,
    bundle_option: Path | None,
    score_only: Path | None,
    strict_official: bool,
    output: Path | None,
    html: Path | None,
    **chosen: Any,
) -> None:
    """Answer the questions of MME with every graph of BUNDLE, score the answers, and compare the graphs.

    The visual tokens go through the language model in --llm. Answers are kept in --results, in the official layout, and
    scored as the official calculator does. With --score-only, answers that exist already are scored; that needs neither
    BUNDLE nor language model. More in docs/evaluation.md.
    """
    from pargo_export.cli.evaluation import render_evaluation

    if bundle is not None and bundle_option is not None:
        raise click.UsageError("found BUNDLE and --bundle; give it once")
    chosen["bundle"] = bundle or bundle_option
    _check_files(output, html)
    if score_only is not None:
        found = _score(score_only, strict_official=strict_official, chosen=chosen)
    else:
        if strict_official:
            raise click.UsageError(
                "--strict-official is about answers that exist already; give --score-only RESULTS"
            )
        found = _evaluate(reporter, **chosen)
    if output is not None:
        from pargo_export.evaluation.mme.result_file import write_evaluation

        write_evaluation(found, output)
    if html is not None:
        from pargo_export.evaluation.report import write_evaluation_report

        reporter.step(f"writing {html}")
        write_evaluation_report(found, html)
    reporter.result(found.model_dump(mode="json"), lambda: render_evaluation(found))


def _score(directory: Path, *, strict_official: bool, chosen: dict[str, Any]) -> MmeEvaluation:
    given = [f"--{name.replace('_', '-')}" for name in _ANSWERING if chosen[name]]
    if given:
        raise click.UsageError(f"{', '.join(given)} has no meaning with --score-only, which answers nothing")
    from pargo_export.evaluation.mme.score_only import score_only

    return score_only(
        directory, baseline=chosen["baseline"], strict_official=strict_official, seed=chosen["seed"]
    )


def _evaluate(
    reporter: Reporter,
    *,
    bundle: Path | None,
    llm: Path | None,
    data: Path | None,
    tasks: tuple[str, ...] | None,
    limit: int | None,
    skip_missing: bool,
    results: Path,
    adapters: Path | None,
    lora_alpha: float | None,
    template: str,
    beams: int,
    max_new_tokens: int,
    llm_backend: Literal["auto", "transformers", "onnxruntime"],
    dtype: str,
    device: str,
    trust_remote_code: bool,
    variants: tuple[str, ...] | None,
    threads: int | None,
    **options: Any,
) -> MmeEvaluation:
    missing = [
        name for name, value in (("BUNDLE", bundle), ("--llm", llm), ("--data", data)) if value is None
    ]
    if bundle is None or llm is None or data is None:
        raise click.UsageError(f"Missing {', '.join(missing)}; or give --score-only RESULTS.")
    from pargo_export.bundle import Bundle
    from pargo_export.evaluation.language_model import describe_chat
    from pargo_export.evaluation.mme import read_mme
    from pargo_export.evaluation.mme.evaluate import MmeOptions, evaluate_mme
    from pargo_export.llm import Chat, GenerationSettings, open_language_model, read_template

    choices = MmeOptions(variants=variants or (), threads=threads, **options)
    settings = GenerationSettings(max_new_tokens=max_new_tokens, num_beams=beams)
    text = read_template(template)
    questions = read_mme(data, tasks=tasks, limit=limit, skip_missing=skip_missing)
    opened = Bundle.open(bundle)
    reporter.step(f"opening {llm}")
    with open_language_model(
        llm,
        backend=llm_backend,
        adapters=adapters,
        lora_alpha=lora_alpha,
        dtype=dtype,
        device=device,
        threads=threads,
        trust_remote_code=trust_remote_code,
    ) as language_model:
        chat = Chat(None, language_model, template=text, settings=settings)
        facts = describe_chat(
            chat, llm, adapters, backend=llm_backend, dtype=dtype, device=device, lora_alpha=lora_alpha
        )
        return evaluate_mme(
            opened,
            chat,
            questions,
            results,
            choices,
            language_model=facts,
            limit=limit,
            command=command_line(),
            progress=reporter.step,
            advance=reporter.advance,
        )


def _check_files(output: Path | None, html: Path | None) -> None:
    """Find out before the work, not after it, that something cannot be written."""
    for path in (output, html):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: its directory does not exist; create it first")
    if html is not None:
        from pargo_export.optional import require

        for module in ("jinja2", "plotly"):
            require(module, extra="report", purpose="write a report")
