"""Good and hostile checkpoint files for tests."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from golden_cases import golden_case
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["Calls", "golden_tensors", "save_index", "save_safetensors", "save_torch", "with_language_model"]


class Calls:
    """Pickles into a call of a function, which a trusting loader would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments

    @classmethod
    def system(cls, marker: Path) -> Calls:
        """Call `os.system` to create `marker`."""
        return cls(os.system, f"touch {marker}")

    @classmethod
    def eval(cls, marker: Path) -> Calls:
        """Call `eval` to create `marker`."""
        return cls(builtins.eval, f"open({str(marker)!r}, 'w').close()")


def golden_tensors(name: str) -> dict[str, Tensor]:
    """Return the state dict of a golden case under official names."""
    return load_file(golden_case(name).checkpoint)


def save_torch(path: Path, content: Any) -> Path:
    """Write `content` with `torch.save`."""
    torch.save(content, path)
    return path


def save_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write a safetensors file without metadata."""
    save_file(tensors, path)
    return path


def save_index(directory: Path, tensors: dict[str, Tensor], *, suffix: str = "safetensors") -> Path:
    """Write three shards and their index."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for shard in range(3):
        name = f"{stem}-{shard + 1:05}-of-00003.{suffix}"
        part = dict(list(tensors.items())[shard::3])
        save_safetensors(directory / name, part) if suffix == "safetensors" else save_torch(
            directory / name, part
        )
        weight_map |= dict.fromkeys(part, name)
    index = directory / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return index


def with_language_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add two tensors of a language model and its two LoRA adapters."""
    base = "llm_model.base_model.model.model.layers.0.attention.wqkv."
    return tensors | {
        "llm_model.base_model.model.model.tok_embeddings.weight": torch.ones(4, 8),
        base + "base_layer.weight": torch.ones(8, 8),
        base + "lora_A.default.weight": torch.ones(2, 8),
        base + "lora_B.default.weight": torch.ones(8, 2),
    }
