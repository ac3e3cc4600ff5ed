"""`pargo-export estimate`: how long a run should take on a device that is not at hand."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import parse_names
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from pargo_export.estimation import Precision

__all__ = ["PRECISIONS", "command"]

PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "int8-weight-only")  # as in pargo_export.estimation
_LIST = "list"


def _parse_precisions(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = parse_names(ctx, param, value) or ()
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown or not names:
        found = f"found {', '.join(unknown)}" if unknown else "found none"
        raise click.BadParameter(f"{found}; choose from {', '.join(PRECISIONS)}")
    return names


def _parse_batches(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    names = parse_names(ctx, param, value) or ()
    if not names or not all(name.isdecimal() and int(name) for name in names):
        raise click.BadParameter(f"found {value!r}, expected numbers of images from 1 on, such as 1,8")
    return tuple(int(name) for name in names)


@click.command("estimate", cls=PargoCommand, short_help="Predict the time on a device that is not at hand.")
@click.argument("source", required=False)
@click.option(
    "--device",
    "devices",
    metavar="NAME,...",
    callback=parse_names,
    help="Devices; list: show the device table.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="NAME,...",
    default="fp16",
    show_default=True,
    callback=_parse_precisions,
    help=f"{', '.join(PRECISIONS)}.",
)
@click.option(
    "--batch",
    "batches",
    metavar="N,...",
    default="1",
    show_default=True,
    callback=_parse_batches,
    help="Images at once.",
)
@pass_reporter
def command(
    reporter: Reporter,
    source: str | None,
    devices: tuple[str, ...] | None,
    precisions: tuple[Precision, ...],
    batches: tuple[int, ...],
) -> None:
    """Estimate time and memory on a device; nothing is run, and the result is a range.

    SOURCE is a bundle, a preset, or a JSON file with a complete configuration. The time is from normalised pixels on
    the device to visual tokens; decoding and copies are not in it. How far such estimates were off is in
    docs/estimate.md.
    """
    from pargo_export.cli.estimates import device_table, render_estimates
    from pargo_export.estimation import estimate, list_devices

    if devices == (_LIST,):
        table = list_devices()
        reporter.result([device.model_dump() for device in table], lambda: [device_table(table)])
        return
    if source is None:
        raise click.UsageError("Missing argument 'SOURCE': a bundle, a preset or a configuration.")
    if not devices:
        raise click.UsageError("Missing option '--device': names of devices; --device list shows them.")
    found = [estimate(source, *how) for how in product(devices, precisions, batches)]
    reporter.result(
        {"kind": "estimate", "estimates": [item.to_dict() for item in found]}, lambda: render_estimates(found)
    )
