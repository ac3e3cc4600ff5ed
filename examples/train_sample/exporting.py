"""Write what was trained: the front-end in the official key layout, the language model as transformers keeps it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from packing import PackedModel
from safetensors.torch import save
from torch import Tensor, nn
from tower_training import Tower

from pargo_export.bundle import atomic_write
from pargo_export.checkpoint.config_search import METADATA_KEY
from pargo_export.checkpoint.key_mapping import official_buffers, official_name
from pargo_export.config import ModelConfig
from pargo_export.model.loading import expected_buffer

__all__ = ["CHECKPOINT", "LLM", "save_sample"]

CHECKPOINT, LLM = "model.safetensors", "llm"


def save_sample(
    directory: Path, config: ModelConfig, tower: Tower, model: PackedModel, tokenizer: Any
) -> None:
    """Write `model.safetensors` and `llm/` into `directory`, with weights in float16.

    The checkpoint has every key that the official code saves for the front-end, derived buffers included, and
    carries its configuration in its metadata.

    Raises:
        ValueError: A weight is not finite in float16.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = official_tensors(config, tower, model.projector)
    content = save(tensors, {METADATA_KEY: config.model_dump_json()})
    atomic_write(directory / CHECKPOINT, lambda stream: stream.write(content))
    _save_language_model(directory / LLM, model.language_model, tokenizer)


def official_tensors(config: ModelConfig, tower: nn.Module, projector: nn.Module) -> dict[str, Tensor]:
    """Return every tensor of the checkpoint under its official name; floats in float16."""
    state = dict(tower.state_dict())
    state |= {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()}
    tensors = {official_name(name): tensor for name, tensor in state.items()}
    for key, kind in official_buffers(config.vision.num_layers, has_queries=config.projector.has_queries):
        tensors[key] = expected_buffer(kind, config)
    return {name: _half(tensor, name) for name, tensor in tensors.items()}


def _half(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    half = tensor.detach().to(torch.float16).contiguous().clone()
    if not bool(half.isfinite().all()):
        raise ValueError(
            f"{name}: a weight does not fit float16; train with more weight decay, or store float32"
        )
    return half


def _save_language_model(directory: Path, language_model: Any, tokenizer: Any) -> None:
    """Write into a folder beside, then exchange the two: a reader never sees half a model."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        new = Path(folder) / "new"
        # A copy in half precision: the model that was trained stays as it is.
        copy = type(language_model)(language_model.config)
        copy.load_state_dict(language_model.state_dict())
        copy.to(torch.float16).save_pretrained(new)
        tokenizer.save_pretrained(new)
        if directory.exists():
            shutil.move(directory, Path(folder) / "old")
        shutil.move(new, directory)
