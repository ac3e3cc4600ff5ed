"""`pargo-export inspect`: what is in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter
from pargo_export.errors import InputError, PargoExportError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["command"]


@click.command("inspect", cls=PargoCommand, short_help="Show what is in a bundle.")
@click.argument("bundle", type=FILE)
@click.option("--variant", metavar="NAME", help="Show this graph; by default all, and the cost of the first.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images in the cost table."
)
@click.option("--masks", is_flag=True, help="Draw the attention masks, and nothing else.")
@click.option("--masks-png", type=FILE, help="Write the attention masks to a PNG file.")
@click.option("--windows-png", type=FILE, help="Write a photograph with the partial windows to a PNG file.")
@click.option("--photo", type=FILE, help="The photograph for --windows-png; by default one of ours.")
@pass_reporter
def command(
    reporter: Reporter,
    bundle: Path,
    variant: str | None,
    batch: int,
    masks: bool,
    masks_png: Path | None,
    windows_png: Path | None,
    photo: Path | None,
) -> None:
    """Show what is in BUNDLE: model, graphs with their evidence, cost of a run, files; and draw the masks."""
    from pargo_export import Bundle
    from pargo_export.assets import PHOTOGRAPH
    from pargo_export.cli.summary import render_summary
    from pargo_export.inspect import draw_masks, draw_windows, mask_text, summarize

    opened = Bundle.open(bundle)
    if variant is not None:
        opened.variant(variant)  # says which there are
    summary = summarize(opened, batch=batch)
    model = summary.manifest.model
    if masks_png is not None:
        _save(draw_masks(model), masks_png)
    if windows_png is not None:
        _save(draw_windows(model, summary.manifest.preprocessing, photo or PHOTOGRAPH), windows_png)
    if masks:
        drawing = mask_text(model)
        reporter.result({"masks": drawing.splitlines()}, lambda: [drawing])
    else:
        reporter.result(summary.to_dict(), lambda: render_summary(summary, variant))


def _save(picture: Image.Image | None, path: Path) -> None:
    if picture is None:
        raise InputError(f"{path}: this model has nothing to draw: its projector has no such attention")
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise PargoExportError(f"{path} cannot be written: {error}; check its directory") from error
