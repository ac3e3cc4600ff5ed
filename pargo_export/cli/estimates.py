"""How estimates and the table of devices look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import RenderableType

from pargo_export.cli import layout

if TYPE_CHECKING:
    from pargo_export.estimation import BlockEstimate, Device, Estimate, TimeRange

__all__ = ["device_table", "render_estimates"]


def render_estimates(found: list[Estimate]) -> Iterator[RenderableType]:
    """Lay out estimates; of a single one the blocks too."""
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


def device_table(devices: Iterable[Device]) -> RenderableType:
    """Lay out the figures of devices."""
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
