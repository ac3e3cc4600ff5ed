"""Predict how long a run takes on a device that is not at hand: a range, never one number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from pargo_export.errors import ConfigError
from pargo_export.estimation.devices import Device, find_device
from pargo_export.estimation.memory import MemoryEstimate, estimate_memory
from pargo_export.estimation.precisions import Evidence, Precision, Pricing, element_bytes, price
from pargo_export.estimation.roofline import BlockTime, Limit, time_operations
from pargo_export.estimation.subject import Source, Subject, read_subject
from pargo_export.inspect.cost import Part
from pargo_export.inspect.tally import NOTHING_NARROW, Operation, Tally
from pargo_export.inspect.walk import Form, walk_encoder, walk_projector

__all__ = ["BlockEstimate", "Estimate", "TimeRange", "estimate", "time_range"]

_MILLI = 1e3
_TEXTS: dict[Evidence, str] = {
    "validated": "FP16 times of this device were compared with such estimates",
    "other": "only times of other devices or precisions were compared with such estimates",
    "unproven": "next to no times of this precision were compared with such estimates",
}


@dataclass(frozen=True)
class TimeRange:
    """An estimated time, in milliseconds: it should lie between `low_ms` and `high_ms`.

    Attributes:
        low_ms: Fast end.
        central_ms: Middle, the geometric mean of what the two ends start from.
        high_ms: Slow end.
        limit: What takes most of the time at the slow end: `compute`, `memory` or `launches`.
    """

    low_ms: float
    central_ms: float
    high_ms: float
    limit: Limit


@dataclass(frozen=True)
class BlockEstimate:
    """One block.

    Attributes:
        name: As `pargo-export inspect` calls it.
        part: The component it belongs to.
        flops: Operations of its matrix products and attention.
        moved_bytes: Weights read once, and what products and attention read and write.
        kernels: Kernels that are launched.
        time: How long it should take.
    """

    name: str
    part: Part
    flops: int
    moved_bytes: int
    kernels: int
    time: TimeRange


@dataclass(frozen=True)
class Estimate:
    """An estimate; nothing in it was measured.

    Attributes:
        device: The device and its power mode.
        precision: What the products are in.
        batch: Images at once.
        variant: The variant of the bundle; `None`: what an export for a GPU would write.
        blocks: The blocks in the order in which they run.
        time: From normalised pixels on the device to visual tokens; decoding and copies are not in it.
        memory: Does it fit.
        evidence: How much there is behind it: `validated`, `other` or `unproven`.
        notes: What the reader should know.
    """

    device: Device
    precision: Precision
    batch: int
    variant: str | None
    blocks: tuple[BlockEstimate, ...]
    time: TimeRange
    memory: MemoryEstimate
    evidence: Evidence
    notes: tuple[str, ...]

    @property
    def evidence_text(self) -> str:
        """The evidence in words."""
        return _TEXTS[self.evidence]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate in the types of JSON."""
        return {
            "kind": "estimate",
            "device": self.device.model_dump(),
            "precision": self.precision,
            "batch": self.batch,
            "variant": self.variant,
            "time": asdict(self.time),
            "evidence": self.evidence,
            "evidence_text": self.evidence_text,
            "memory": asdict(self.memory) | {"total_bytes": self.memory.total_bytes},
            "notes": list(self.notes),
            "blocks": [asdict(block) for block in self.blocks],
        }


def estimate(
    source: Source, device: str | Device = "orin-agx-64", precision: Precision = "fp16", batch: int = 1
) -> Estimate:
    """Estimate the time and the memory of a run.

    Args:
        source: A bundle or its directory, a preset, a JSON file with a complete configuration, or a configuration.
        device: Its name in the device table, or a description of your own.
        precision: `fp32`, `fp16`, `bf16`, `fp8`, `int8` or `int8-weight-only`; 8-bit ones keep the rest in FP16.
        batch: Images at once.

    Raises:
        ConfigError: The device or the preset is unknown, the device cannot do the precision, or the configuration is
            incomplete.
        BundleError: The directory holds no valid bundle.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}, expected at least 1 image")
    found = device if isinstance(device, Device) else find_device(device)
    pricing = price(found, precision)
    subject = read_subject(source, precision)
    blocks = list(_walk(subject, batch))
    size = element_bytes(precision)
    heads = _unfused_heads(subject)
    times = [
        _ends(tally.operations, pricing, size, heads if part == "projector" else 0)
        for part, _, tally in blocks
    ]
    return Estimate(
        device=found,
        precision=precision,
        batch=batch,
        variant=subject.variant,
        blocks=tuple(
            BlockEstimate(
                name, part, tally.flops, _moved(tally, size), slow.kernels, _range(fast, slow, pricing)
            )
            for (part, name, tally), (fast, slow) in zip(blocks, times, strict=True)
        ),
        time=_range(
            sum((fast for fast, _ in times), BlockTime()),
            sum((slow for _, slow in times), BlockTime()),
            pricing,
        ),
        memory=estimate_memory((tally for _, _, tally in blocks), found, element_bytes=size),
        evidence=pricing.evidence,
        notes=(*pricing.notes, *_notes(subject)),
    )


def time_range(operations: list[Operation], device: Device, precision: Precision = "fp16") -> TimeRange:
    """Estimate the time of any sequence of operations, for example of another model.

    Raises:
        ConfigError: The device cannot do the precision.
    """
    pricing = price(device, precision)
    return _range(*_ends(operations, pricing, element_bytes(precision), 0), pricing)


def _walk(subject: Subject, batch: int) -> list[tuple[Part, str, Tally]]:
    found: list[tuple[Part, str, Tally]] = []
    if subject.component != "projector":
        encoder = walk_encoder(subject.config, subject.form, batch)
        found += [("encoder", name, tally) for name, tally in encoder]
    if subject.component != "encoder":
        projector = walk_projector(subject.config, subject.form, batch)
        found += [("projector", name, tally) for name, tally in projector]
    return found


def _moved(tally: Tally, size: int) -> int:
    narrow = tally.narrow_weights + tally.narrow_activations
    return size * (tally.weights + tally.activations - narrow) + narrow


def _unfused_heads(subject: Subject) -> int:
    # Official masks are added to the scores, which no fused attention of TensorRT takes in this form.
    return subject.config.projector.num_heads if subject.form.attention == "dense" else 0


def _ends(
    operations: list[Operation], pricing: Pricing, size: int, unfused_heads: int
) -> tuple[BlockTime, BlockTime]:
    fast = time_operations(operations, pricing.fast, element_bytes=size, unfused_heads=unfused_heads)
    if pricing.is_slow_float:
        operations = [operation._replace(narrow=NOTHING_NARROW) for operation in operations]
    slow = time_operations(operations, pricing.slow, element_bytes=size, unfused_heads=unfused_heads)
    return fast, slow


def _range(fast: BlockTime, slow: BlockTime, pricing: Pricing) -> TimeRange:
    first, last = fast.total_s * _MILLI, slow.total_s * _MILLI * pricing.slow_factor
    return TimeRange(
        low_ms=first * pricing.spread.low,
        central_ms=sqrt(first * last),
        high_ms=last * pricing.spread.high,
        limit=slow.limit,
    )


def _notes(subject: Subject) -> tuple[str, ...]:
    form: Form = subject.form
    width = subject.config.vision.hidden_width
    if subject.component == "projector" or not width % 8 or form.has("pad-swiglu"):
        return ()
    note = (
        f"The hidden width {width} is no multiple of 8, which tensor cores do badly (up to 4 times slower on an H100): "
        "export with --target cuda, orin, thor or rtx, which pad it."
    )
    return (note,)
