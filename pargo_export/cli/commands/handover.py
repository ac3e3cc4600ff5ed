"""`pargo-export handover`: a variant or an engine in the format of another runtime or tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.engine.handover import Handover

__all__ = ["command"]

_FORMATS = ("triton", "ep-context", "polygraphy")


@click.command("handover", cls=PargoCommand, short_help="Write a bundle in the format of another tool.")
@click.argument("bundle", type=FILE)
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True, help="What to write.")
@click.option("-o", "--output", type=FILE, required=True, help="The directory to make.")
@click.option("--variant", metavar="NAME", help="The variant; may be left out if there is one.")
@click.option("--engine", metavar="NAME", help="triton, ep-context: hand over this engine.")
@click.option("--name", metavar="NAME", help="triton: name of the model.")
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="triton: instances of the model.",
)
@click.option("--no-warmup", is_flag=True, help="triton: do not run the model once before it is ready.")
@click.option("--embed", is_flag=True, help="ep-context: put the engine into the model, not beside it.")
@click.option("--calibration", metavar="NAME", help="polygraphy: whose evaluation images to take.")
@click.option("--force", is_flag=True, help="Replace a directory that this command wrote before.")
@pass_reporter
def command(
    reporter: Reporter,
    bundle: Path,
    format_: str,
    output: Path,
    variant: str | None,
    engine: str | None,
    name: str | None,
    instances: int,
    no_warmup: bool,
    embed: bool,
    calibration: str | None,
    force: bool,
) -> None:
    """Write BUNDLE, or one engine of it, as a directory for another runtime or tool.

    triton: a model repository for Triton Inference Server, with a TensorRT engine or the ONNX graph. ep-context: an
    ONNX model that wraps an engine, for ONNX Runtime. polygraphy: a data loader script with the evaluation images.
    """
    from pargo_export.engine.handover import hand_over_ep_context, hand_over_polygraphy, hand_over_triton

    given = {
        "--engine": engine is not None and format_ == "polygraphy",
        "--name": name is not None and format_ != "triton",
        "--instances": instances != 1 and format_ != "triton",
        "--no-warmup": no_warmup and format_ != "triton",
        "--embed": embed and format_ != "ep-context",
        "--calibration": calibration is not None and format_ != "polygraphy",
    }
    wrong = [option for option, is_wrong in given.items() if is_wrong]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)} means nothing for --format {format_}; leave it out")
    reporter.step(f"writing {output}")
    if format_ == "triton":
        result = hand_over_triton(
            bundle,
            output,
            variant=variant,
            engine=engine,
            name=name,
            num_instances=instances,
            warmup=not no_warmup,
            force=force,
        )
    elif format_ == "ep-context":
        result = hand_over_ep_context(
            bundle, output, variant=variant, engine=engine, embed=embed, force=force
        )
    else:
        result = hand_over_polygraphy(bundle, output, variant=variant, calibration=calibration, force=force)
    values = {
        "format": result.format,
        "path": str(result.path),
        "variant": result.variant,
        "engine": result.engine,
        "files": list(result.files),
        "notes": list(result.notes),
    }
    reporter.result(values, lambda: _render(result))


def _render(result: Handover) -> Iterator[RenderableType]:
    from pargo_export.cli import layout

    what = f"engine {result.engine}" if result.engine else f"variant {result.variant}"
    yield f"{result.path}: {what} for {result.format}"
    rows = [(name, layout.size((result.path / name).stat().st_size)) for name in result.files]
    yield layout.table(("file", "size"), rows)
    for note in result.notes:
        yield f"note: {note}"
    yield "How to use it is in README.md."
