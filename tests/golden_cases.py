"""The golden cases: checkpoints, configurations and outputs of the official implementation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import load_checkpoint

__all__ = ["CASES", "GOLDEN", "PARGO_CASES", "QUERY_CASES", "GoldenCase", "golden_case", "golden_model"]

GOLDEN = Path(__file__).parent / "golden"
PARGO_CASES = ("pargo_w2", "pargo_w4_freq2", "pargo_small_variance")
QUERY_CASES = (*PARGO_CASES, "qformer")
CASES = (*QUERY_CASES, "linear", "mlp")


@dataclass(frozen=True)
class GoldenCase:
    """One golden case.

    Attributes:
        name: Its name.
        checkpoint: State dict with official names.
        config: JSON file with official names.
        io: Stored inputs and outputs; do not write to them.
    """

    name: str
    checkpoint: Path
    config: Path
    io: dict[str, Tensor]

    @property
    def images(self) -> Tensor:
        """Normalised input `[B, 3, S, S]`."""
        return self.io["images"]

    @property
    def values(self) -> dict[str, Any]:
        """A fresh copy of the content of `config`."""
        content: dict[str, Any] = json.loads(self.config.read_text("utf-8"))
        return content


@lru_cache
def golden_case(name: str) -> GoldenCase:
    """Return a golden case."""
    checkpoint = GOLDEN / f"{name}.safetensors"
    return GoldenCase(
        name, checkpoint, checkpoint.with_suffix(".json"), load_file(GOLDEN / f"{name}.io.safetensors")
    )


def golden_model(name: str) -> VisualFrontEnd:
    """Return a fresh reference model of a golden case."""
    case = golden_case(name)
    return load_checkpoint(case.checkpoint, case.config)
