"""`pargo-export sample`: write a random checkpoint, or copy out the trained sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]


@click.command("sample", cls=PargoCommand, short_help="Write a random or a trained checkpoint, for trials.")
@click.option("-o", "--output", type=FILE, help="File to write: .safetensors, .pt, .pth or .bin.")
@click.option(
    "--trained",
    is_flag=True,
    help="Copy the trained sample into the directory --output: model.safetensors, llm/, CARD.md.",
)
@click.option(
    "--preset",
    "name",
    type=click.Choice(tuple(PRESETS)),
    default="tiny",
    show_default=True,
    help="What to make.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the weights.")
@click.option(
    "--llm", is_flag=True, help="Add a few small tensors of a language model, as a full checkpoint has."
)
@click.option(
    "--outliers",
    is_flag=True,
    help="Heavy-tailed activations, as trained models have, for studies of quantization.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--list", "is_list", is_flag=True, help="List the presets and do nothing else.")
@pass_reporter
def command(
    reporter: Reporter,
    output: Path | None,
    trained: bool,
    name: str,
    seed: int,
    llm: bool,
    outliers: bool,
    overwrite: bool,
    is_list: bool,
) -> None:
    """Write a checkpoint in the official layout, for trials and benchmarks: random, or the small trained one."""
    if is_list:
        models = {known: preset(known) for known in PRESETS}
        reporter.result(
            {known: model.model_dump(mode="json") for known, model in models.items()}, _render_presets
        )
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    if trained:
        _copy_trained(reporter, output, overwrite=overwrite)
        return
    from pargo_export import write_sample

    reporter.step(f"writing {output}")
    path = write_sample(output, name, seed=seed, llm=llm, outliers=outliers, overwrite=overwrite)
    size_bytes = path.stat().st_size
    values = {"path": str(path), "preset": name, "seed": seed, "size_bytes": size_bytes}

    def render() -> Iterator[RenderableType]:
        from pargo_export.cli.layout import size

        yield f"{path}: {size(size_bytes)}, preset {name}, seed {seed}"

    reporter.result(values, render)


def _copy_trained(reporter: Reporter, output: Path, *, overwrite: bool) -> None:
    given = [
        f"--{option}"
        for option, parameter in (
            ("preset", "name"),
            ("seed", "seed"),
            ("llm", "llm"),
            ("outliers", "outliers"),
        )
        if click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)} chooses random weights; it does not go with --trained.")
    from pargo_export.model.trained_sample import CHECKPOINT_NAME, LLM_NAME, copy_trained_sample

    reporter.step(f"copying the trained sample to {output}")
    directory = copy_trained_sample(output, overwrite=overwrite)
    size_bytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    values = {
        "path": str(directory),
        "checkpoint": str(directory / CHECKPOINT_NAME),
        "llm": str(directory / LLM_NAME),
        "size_bytes": size_bytes,
    }

    def render() -> Iterator[RenderableType]:
        from pargo_export.cli.layout import size

        yield f"{directory}: {size(size_bytes)}, {CHECKPOINT_NAME}, {LLM_NAME}/ and CARD.md"

    reporter.result(values, render)


def _render_presets() -> Iterator[RenderableType]:
    from pargo_export.cli.layout import table

    rows = []
    for name in PRESETS:
        model = preset(name)
        height, width = model.input_size
        tower = f"{model.vision.num_layers} x {model.vision.width}"
        tokens = f"{model.num_visual_tokens} x {model.projector.llm_hidden_size}"
        rows.append((name, model.projector.kind, f"{height} x {width}", tower, tokens))
    yield table(("preset", "projector", "pixels", "tower", "visual tokens"), rows, num_left=2)
