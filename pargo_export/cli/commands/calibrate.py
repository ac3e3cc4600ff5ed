"""`pargo-export calibrate`: observe activations on images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pargo_export.cli import arguments
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export import CalibrationResult

__all__ = ["command"]

_NUM_REASONS = 3  # the table in the bundle lists every image that was left out


@click.command("calibrate", cls=PargoCommand, short_help="Observe activations on images, to quantize.")
@click.argument("bundle", type=arguments.FILE)
@click.option(
    "--data",
    required=True,
    metavar="PATH|random",
    help="Folder of pictures, image-caption manifest (.jsonl, .json, .parquet, .tar), pixels (.npz, .safetensors).",
)
@click.option(
    "--images",
    "num_images",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Images to observe, at most.",
)
@click.option(
    "--evaluation-images",
    "num_evaluation",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Further images to keep for measuring accuracy, at most.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the images.")
@click.option(
    "--shard",
    metavar="I/N",
    default="0/1",
    show_default=True,
    callback=arguments.parse_shard,
    help="Use part I of N of the data, counted from 0.",
)
@click.option(
    "--smoothing",
    type=click.FloatRange(0, 1),
    metavar="A",
    default=1.0,
    show_default=True,
    help="Largest exponent of the smoothing whose ranges are observed too; 0: none.",
)
@click.option("--name", default="default", show_default=True, help="Name of the calibration in the bundle.")
@click.option("--variant", metavar="NAME", help="FP32 graph to observe; by default the one that fits.")
@click.option("--allow-random", is_flag=True, help="Accept `--data random`: noise, no evidence of accuracy.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@click.option("--force", is_flag=True, help="Replace a calibration of that name.")
@pass_reporter
def command(reporter: Reporter, /, bundle: Path, data: str, force: bool, **options: Any) -> None:
    """Observe the activations of BUNDLE on images, for `quantize`.

    Some images are kept aside, to measure accuracy on what calibration did not see. An interrupted run continues
    where it was.
    """
    from pargo_export import CalibrateOptions, calibrate

    result = calibrate(
        bundle,
        data,
        CalibrateOptions(**options),
        force=force,
        progress=reporter.step,
        advance=reporter.advance,
    )
    values = {
        "bundle": str(bundle),
        "calibration": result.calibration.model_dump(mode="json"),
        "skipped": [{"image": image, "reason": reason} for image, reason in result.skipped],
        "resumed": result.resumed,
    }
    reporter.result(values, lambda: _render(bundle, result))


def _render(bundle: Path, result: CalibrationResult) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout
    from pargo_export.cli.quantization import describe_images

    found, files = result.calibration, result.bundle.manifest.files
    yield Text.assemble(layout.mark(True), f" calibration {found.name} written to {bundle}")
    reasons = [f"{image}: {reason}" for image, reason in result.skipped]
    more = len(reasons) - _NUM_REASONS
    yield layout.facts(
        [
            ("images", describe_images(found)),
            (
                "resumed",
                f"{result.resumed} images were observed before an interruption" * bool(result.resumed),
            ),
            *(("left out", reason) for reason in reasons[:_NUM_REASONS]),
            ("", f"and {more} more, listed in {found.table}" * (more > 0)),
            ("graph", f"{found.variant}, smoothing {found.smoothing:g}"),
            ("data", f"sha256 {found.dataset_sha256[:16]}, seed {found.seed}"),
            *(("file", f"{path}, {layout.size(files[path].size_bytes)}") for path in found.files),
        ]
    )
