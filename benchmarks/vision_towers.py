"""What is known about times, for the validation of `pargo-export estimate`: other towers, published, and our own H100."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pargo_export.checkpoint.presets import preset
from pargo_export.estimation.precisions import Precision
from pargo_export.estimation.subject import read_subject
from pargo_export.inspect.tally import Narrow, Operation, Tally
from pargo_export.inspect.walk import walk_encoder, walk_projector

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESULTS = Path(__file__).with_name("results")
PUBLISHED = RESULTS / "published" / "edge-llm-0.9.0.toml"
H100 = RESULTS / "h100"
H100_FILES = ("frontend", "frontend-batches", "frontend-parts", "frontend-alone")
PRESET = "eva02-l-336-internlm2-7b"
OURS: dict[str, Precision] = {
    "ours float16": "fp16",
    "ours bfloat16": "bf16",
    "ours fp8": "fp8",
    "ours int8": "int8",
}


@dataclass(frozen=True)
class Known:
    """One known time.

    Attributes:
        device: Name in the device table.
        model: The tower, or the part of ParGo.
        precision: As `estimate` calls it.
        batch: Images at once.
        ms: The time.
        blocks: Operations of each block, and how many blocks have them.
        is_aligned: Whether all wide products have channels that are multiples of 8.
    """

    device: str
    model: str
    precision: Precision
    batch: int
    ms: float
    blocks: tuple[tuple[tuple[Operation, ...], int], ...]
    is_aligned: bool = True

    @property
    def operations(self) -> list[Operation]:
        """All of them."""
        return [operation for found, count in self.blocks for _ in range(count) for operation in found]

    @property
    def flops(self) -> int:
        """Operations of all matrix products and attentions."""
        return sum(count * sum(operation.flops for operation in found) for found, count in self.blocks)


def published_times() -> list[Known]:
    """Return the published FP16 times of other towers on Jetsons."""
    content = read_published()
    return [
        Known(
            device,
            tower,
            "fp16",
            images,
            ms,
            tower_blocks(content["towers"][tower], images, tokens),
            is_aligned=content["towers"][tower]["hidden"] % 8 == 0,
        )
        for device, tower, images, tokens, ms in content["times"]["rows"]
    ]


def measured_times(precision: Precision = "fp16") -> list[Known]:
    """Return what this project measured on an H100, without repetitions of the same thing in one file."""
    found = []
    for name in H100_FILES:
        rows = json.loads((H100 / f"2026-11-23-{name}.json").read_text("utf-8"))["rows"]
        for row in rows:
            if OURS.get(row["name"]) == precision:
                blocks = pargo_blocks(row["component"], precision, row["batch"])
                model = {"all": "ParGo", "encoder": "ParGo's tower", "projector": "ParGo's projector"}
                found.append(
                    Known("h100", model[row["component"]], precision, row["batch"], row["median_ms"], blocks)
                )
    return sorted(found, key=lambda known: (known.model, known.batch, known.ms))


def read_published() -> dict[str, Any]:
    """Return the content of the file of published times."""
    return tomllib.loads(PUBLISHED.read_text("utf-8"))


def pargo_blocks(
    component: str, precision: Precision, batch: int
) -> tuple[tuple[tuple[Operation, ...], int], ...]:
    """Return the operations of ParGo at full size, or of a part of it, as an export for a GPU writes them."""
    subject = read_subject(preset(PRESET), precision)
    tallies: list[Tally] = []
    if component != "projector":
        tallies += [tally for _, tally in walk_encoder(subject.config, subject.form, batch)]
    if component != "encoder":
        tallies += [tally for _, tally in walk_projector(subject.config, subject.form, batch)]
    return _count(tallies)


def tower_blocks(
    tower: Mapping[str, Any], images: int, tokens: int, *, is_narrow: bool = False
) -> tuple[tuple[tuple[Operation, ...], int], ...]:
    """Return the operations of a tower of the Qwen families.

    Args:
        tower: Its entry in the file of published times.
        images: Images at once.
        tokens: Merged tokens of all images, four patches each.
        is_narrow: Whether weights and inputs of the linears in the blocks have 8 bits.
    """
    width, hidden, patches = tower["width"], tower["hidden"], 4 * tokens
    narrow = Narrow(is_narrow, is_narrow)
    tallies = [Tally()]
    tallies[0].product(patches, 3 * 2 * tower["patch"] ** 2, width)  # two frames: an image is repeated
    for layer in range(tower["depth"]):
        tally = Tally()
        window = tower.get("window") if layer not in tower.get("full_attention", ()) else None
        tally.product(patches, width, 3 * width, narrow=narrow)
        length = window or patches // images
        tally.attention(patches // length, length, length, width, num_scores=length**2)
        tally.product(patches, width, width, narrow=narrow)
        tally.product(patches, width, hidden * (2 if tower.get("is_gated") else 1), narrow=narrow)
        tally.product(patches, hidden, width, narrow=narrow)
        tallies.append(tally)
    for _ in range(tower["mergers"]):
        tally = Tally()
        tally.product(tokens, 4 * width, 4 * width)
        tally.product(tokens, 4 * width, tower["merged"])
        tallies.append(tally)
    return _count(tallies)


def _count(tallies: Sequence[Tally]) -> tuple[tuple[tuple[Operation, ...], int], ...]:
    return tuple(Counter(tuple(tally.operations) for tally in tallies).items())
