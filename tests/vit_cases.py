"""The golden towers of `transformers` with a random projector behind them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
from golden_cases import GOLDEN
from made_once import made_once
from rewrite.random_models import random_config, random_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from pargo_export.checkpoint.key_mapping import official_name
from pargo_export.checkpoint.vision_model import VisionLayer, open_vision_model
from pargo_export.config import ModelConfig
from pargo_export.graph.export import export_onnx
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import load_checkpoint

__all__ = ["KINDS", "TOWERS", "load_vit", "vit_bundle", "vit_config", "vit_io", "write_projector"]

TOWERS = GOLDEN / "towers"
KINDS = ("clip", "siglip")


@lru_cache
def vit_io(kind: str) -> dict[str, Tensor]:
    """Return stored inputs and outputs of `transformers`; do not write to them."""
    return load_file(TOWERS / f"{kind}.io.safetensors")


def vit_config(kind: str, layer: VisionLayer | None = None) -> ModelConfig:
    """Return a golden tower, 36 image tokens of 24 channels, with a ParGo of 9 partial and 3 global tokens."""
    values = {
        "vision": open_vision_model(TOWERS / kind, layer).config,
        "projector": random_config().projector,
    }
    return ModelConfig.parse(values, source="test")


def write_projector(directory: Path, kind: str = "clip") -> Path:
    """Write a checkpoint of `ln_vision` and projector alone, and beside it what its shapes do not tell."""
    config = vit_config(kind)
    weights = random_model(config).state_dict()
    path = directory / "projector.safetensors"
    save_file(
        {official_name(name): weight for name, weight in weights.items() if not name.startswith("tower.")},
        path,
    )
    path.with_suffix(".json").write_text(json.dumps({"projector": config.projector.model_dump()}))
    return path


def load_vit(directory: Path, kind: str, layer: VisionLayer | None = None) -> VisualFrontEnd:
    """Return the reference with a golden tower."""
    return load_checkpoint(write_projector(directory, kind), None, open_vision_model(TOWERS / kind, layer))


def vit_bundle(factory: pytest.TempPathFactory, kind: str) -> Path:
    """Return a bundle with the variant fp32, beside the checkpoint that it was made from; do not write to it."""

    def make(directory: Path) -> None:
        export_onnx(load_vit(directory, kind), directory / "bundle", max_batch=2)

    return made_once(factory, f"tower-{kind}", make) / "bundle"
