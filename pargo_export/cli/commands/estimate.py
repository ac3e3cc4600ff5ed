"""`pargo-export estimate`: how long a run should take on a device that is not at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, product
from typing import TYPE_CHECKING

import click

from pargo_export.cli import layout
from pargo_export.cli.arguments import parse_names
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.estimation import BlockEstimate, Device, Estimate, Precision, TimeRange

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
    from pargo_export.estimation import estimate, list_devices

    if devices == (_LIST,):
        table = list_devices()
        reporter.result([device.model_dump() for device in table], lambda: [_device_table(table)])
        return
    if source is None:
        raise click.UsageError("Missing argument 'SOURCE': a bundle, a preset or a configuration.")
    if not devices:
        raise click.UsageError("Missing option '--device': names of devices; --device list shows them.")
    found = [estimate(source, *how) for how in product(devices, precisions, batches)]
    reporter.result(
        {"kind": "estimate", "estimates": [item.to_dict() for item in found]}, lambda: _render(found)
    )


def _render(found: list[Estimate]) -> Iterator[RenderableType]:
    yield layout.heading("Estimate (a prediction, nothing was run)")
    columns = ("device", "precision", "batch", "estimated ms", "middle", "limit", "memory")
    yield layout.table(columns, [_row(item) for item in found], num_left=2)
    if len(found) == 1:
        yield layout.heading("Estimate by block")
        of_blocks = ("block", "GFLOP", "kernels", "estimated ms", "limit")
        yield layout.table(of_blocks, _block_rows(found[0].blocks))
    yield layout.heading("About this estimate")
    yield layout.facts(_facts(found))


def _row(item: Estimate) -> tuple[str, ...]:
    return (
        item.device.name,
        item.precision,
        str(item.batch),
        _range(item.time),
        layout.figure(item.time.central_ms),
        item.time.limit,
        layout.size(item.memory.total_bytes) + ("" if item.memory.fits else " (!)"),
    )


def _range(time: TimeRange) -> str:
    return f"{layout.figure(time.low_ms)} - {layout.figure(time.high_ms)}"


def _block_rows(blocks: Iterable[BlockEstimate]) -> Iterator[tuple[str, ...]]:
    """Yield a line a block; alike blocks share one, with the time of each."""

    def cells(block: BlockEstimate) -> tuple[str, ...]:
        flops = f"{block.flops / 1e9:.3g}"
        if not block.kernels:  # it is done in a neighbour's kernel, or ahead of time
            return flops, "-", "-", ""
        return flops, str(block.kernels), _range(block.time), block.time.limit

    for (_, alike), group in groupby(blocks, lambda block: (block.name.rstrip("0123456789"), cells(block))):
        names = [block.name for block in group]
        label = names[0].replace("_", " ")
        if len(names) > 1:
            label = f"{label}-{names[-1].rpartition('_')[2]}, each"
        yield (label, *alike)


def _facts(found: list[Estimate]) -> Iterator[tuple[str, str]]:
    for device in dict.fromkeys(item.device for item in found):
        items = [item for item in found if item.device == device]
        text = ", ".join(filter(None, (device.title, device.mode)))
        if device.is_memory_shared:
            left = layout.size(min(item.memory.left_bytes for item in items))
            text += f"; at least {left} are left for the language model, the system and the rest"
        yield device.name, text
        yield from (("does not fit", _memory_warning(item)) for item in items if not item.memory.fits)
    for (precision, variant), text in dict.fromkeys(
        ((item.precision, item.variant), item.evidence_text) for item in found
    ):
        form = f"variant {variant}" if variant else "as an export for a GPU writes it"
        named = [
            item.device.name for item in found if (item.precision, item.evidence_text) == (precision, text)
        ]
        yield precision, f"{form}; {text}: {', '.join(dict.fromkeys(named))}"
    for note in dict.fromkeys(note for item in found for note in item.notes):
        yield "note", note
    yield "not in it", "decoding, preprocessing, copies between host and device"


def _memory_warning(item: Estimate) -> str:
    needed, memory = layout.size(item.memory.total_bytes), layout.size(item.memory.device_bytes)
    return (
        f"batch {item.batch} needs about {needed} of the {memory} of {item.device.name}, beside the system: "
        "take a smaller batch, 8-bit weights, or a device with more memory"
    )


def _device_table(devices: Iterable[Device]) -> RenderableType:
    rows = [
        (
            device.name,
            device.mode or "-",
            *(
                "-" if peak is None else layout.figure(peak)
                for peak in (device.fp16, device.int8, device.fp8)
            ),
            layout.figure(device.bandwidth),
            f"{device.memory:g}",
        )
        for device in devices
    ]
    return layout.table(("device", "mode", "FP16", "INT8", "FP8", "GB/s", "GB"), rows, num_left=2)
