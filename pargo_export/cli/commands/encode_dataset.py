"""`pargo-export encode-dataset`: a data set of images to shards of visual tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pargo_export.cli.arguments import FILE, parse_names
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.encoding import EncodedDataset, FailedImage

__all__ = ["command"]

_NUM_REASONS = 3  # the index lists every image that was left out


@click.command("encode-dataset", cls=PargoCommand, short_help="Encode a data set into shards of tokens.")
@click.argument("bundle", type=FILE)
@click.argument("source", metavar="INPUT", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Directory of the shards and their index.")
@click.option(
    "--format",
    type=click.Choice(("parquet", "safetensors")),
    default="parquet",
    show_default=True,
    help="Of the shards.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Images of one shard, the unit of work.",
)
@click.option(
    "--precision",
    type=click.Choice(("fp16", "fp32")),
    default="fp16",
    show_default=True,
    help="Of the stored tokens.",
)
@click.option(
    "--on-error",
    type=click.Choice(("stop", "record")),
    default="stop",
    show_default=True,
    help="What an image that cannot be read does: stop everything, or be left out and listed in the index.",
)
@click.option(
    "--variant", metavar="NAME", help="Graph to run; by default the one that suits the machine best."
)
@click.option("--backend", default="auto", show_default=True, help="What runs it; `doctor` lists them.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images in one run; by default what the graph takes."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of a process; by default every core."
)
@click.option(
    "--id-column",
    metavar="NAME",
    help="Parquet: names of the images; by default `id`, or the place of a row.",
)
@click.option(
    "--image-column", metavar="NAME", help="Parquet: bytes or paths; by default one of the usual names."
)
@click.option(
    "--carry",
    metavar="A,B",
    callback=parse_names,
    help="Columns to store beside the tokens; by default the caption. An empty text: none.",
)
@click.option(
    "--executor",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="This process, or Ray workers.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Ray workers; by default one for each machine of the cluster.",
)
@click.option(
    "--address", help="Running Ray cluster, `auto` for that of this machine; by default one is started here."
)
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, help="GPUs that each Ray worker asks for.")
@click.option(
    "--resume/--force",
    "resume",
    default=True,
    show_default=True,
    help="Go on with what is there, or throw it away first.",
)
@pass_reporter
def command(
    reporter: Reporter, /, bundle: Path, source: Path, output: Path, resume: bool, **options: Any
) -> None:
    """Encode every image of INPUT with a graph of BUNDLE, into shards of visual tokens.

    INPUT is a folder of images, an image-caption manifest (.jsonl, .json), Parquet, or WebDataset shards (.tar). A shard
    appears when it is whole. Called again, the command goes on where it was interrupted.
    """
    from pargo_export.encoding import EncodeOptions, encode_dataset

    done = encode_dataset(
        bundle,
        source,
        output,
        EncodeOptions(**options),
        force=not resume,
        progress=reporter.step,
        advance=reporter.advance,
    )
    index = done.index
    failed = [image for shard in index.shards for image in shard.failed]
    values = {
        "output": str(output),
        "images": index.plan.input.num_images,
        "rows": index.rows,
        "failed": [{"image": image.id, "reason": image.reason} for image in failed],
        "shards": len(index.shards),
        "kept_shards": done.num_kept,
        "encoded_images": done.num_encoded,
        "tokens": {"dtype": index.plan.dtype, "shape": list(index.plan.shape)},
        "variant": index.plan.model.variant,
        "backend": index.plan.model.backend,
        "seconds": round(done.seconds, 6),
    }
    reporter.result(values, lambda: _render(output, done, failed))


def _render(output: Path, done: EncodedDataset, failed: list[FailedImage]) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout

    index, plan = done.index, done.index.plan
    shape = ", ".join(map(str, plan.shape))
    yield Text.assemble(
        layout.mark(True), f" {output}: {layout.count(index.rows)} x {plan.output} {plan.dtype}[{shape}]"
    )
    num_bytes = sum(shard.size_bytes for shard in index.shards)
    rate = done.num_encoded / done.seconds if done.num_encoded else 0.0
    encoded = f"{layout.count(done.num_encoded)} in {done.seconds:.2f} s, {rate:.1f} images/s"
    yield layout.facts(
        [
            ("shards", f"{len(index.shards)} {plan.format} files, {layout.size(num_bytes)}"),
            ("kept", f"{done.num_kept} shards that were there already" * bool(done.num_kept)),
            ("encoded", encoded if done.num_encoded else "nothing, everything was there"),
            ("graph", f"{plan.model.variant} on {plan.model.backend}"),
            *(("left out", f"{image.id}: {image.reason}") for image in failed[:_NUM_REASONS]),
            (
                "",
                f"and {len(failed) - _NUM_REASONS} more, listed in index.json" * (len(failed) > _NUM_REASONS),
            ),
        ]
    )
