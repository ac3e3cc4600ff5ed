"""`pargo-export run`: pictures to visual tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter
from pargo_export.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.cli.images import EncodedImages

__all__ = ["command"]


@click.command("run", cls=PargoCommand, short_help="Encode pictures with a bundle.")
@click.argument("bundle", type=FILE)
@click.argument("images", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="File to write: .safetensors or .npz.")
@click.option(
    "--variant", metavar="NAME", help="Graph to run; by default the one that suits this machine best."
)
@click.option(
    "--engine", metavar="NAME", help="TensorRT engine to run; by default the best for this machine."
)
@click.option("--backend", default="auto", show_default=True, help="What runs it; `doctor` lists them.")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Images in one run; by default what the graph takes."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@click.option("--skip-broken", is_flag=True, help="List pictures that cannot be read, instead of failing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@pass_reporter
def command(
    reporter: Reporter,
    bundle: Path,
    images: tuple[Path, ...],
    output: Path,
    variant: str | None,
    engine: str | None,
    backend: str,
    batch: int | None,
    threads: int | None,
    skip_broken: bool,
    overwrite: bool,
) -> None:
    """Encode IMAGES with a graph of BUNDLE and write the visual tokens to a file.

    IMAGES are files, or directories that are searched for pictures. Row i of the result is picture i; the names
    are in the metadata of the file.
    """
    from pargo_export.cli.images import encode_images
    from pargo_export.preprocessing.finding import find_images
    from pargo_export.runtime import Runtime, describe_provenance, write_tokens

    _check_output(output, overwrite=overwrite)
    found = find_images(images)
    reporter.step(f"opening {bundle}")
    with Runtime.open(bundle, backend=backend, variant=variant, engine=engine, threads=threads) as runtime:
        encoded = encode_images(
            runtime, found, batch_size=batch, skip_broken=skip_broken, progress=reporter.step
        )
        name = runtime.signature.outputs[0].name
        provenance = describe_provenance(runtime, encoded.names)
        write_tokens(output, {name: encoded.tokens}, provenance, overwrite=overwrite)
        used = {"variant": runtime.variant.name, "backend": runtime.backend}
        if runtime.engine is not None:
            used["engine"] = runtime.engine.name
    values = {
        "output": str(output),
        "arrays": {name: {"dtype": str(encoded.tokens.dtype), "shape": list(encoded.tokens.shape)}},
        "images": list(encoded.names),
        "skipped": [{"image": image, "reason": reason} for image, reason in encoded.skipped],
        "seconds": round(encoded.seconds, 6),
        **used,
    }
    reporter.result(values, lambda: _render(output, name, encoded, used))


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Find out before the work, not after it, that the result cannot be written."""
    if output.suffix.lower() not in {".safetensors", ".npz"}:
        raise InputError(f"{output}: unknown suffix {output.suffix!r}; use .safetensors or .npz")
    if os.path.lexists(output) and not overwrite:
        raise InputError(f"{output} exists; choose another name, or allow overwriting (--overwrite)")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: its directory does not exist; create it first")


def _render(
    output: Path, name: str, encoded: EncodedImages, used: dict[str, str]
) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout

    shape = ", ".join(map(str, encoded.tokens.shape))
    yield Text.assemble(layout.mark(True), f" {output}: {name} {encoded.tokens.dtype}[{shape}]")
    count = len(encoded.names)
    yield layout.facts(
        [
            ("images", f"{count} in {encoded.seconds:.2f} s, reading included"),
            ("graph", f"{used['variant']} on {used['backend']}"),
            *([("engine", used["engine"])] if "engine" in used else []),
            *(("skipped", reason) for _, reason in encoded.skipped),
        ]
    )
