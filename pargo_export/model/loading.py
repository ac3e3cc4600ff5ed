"""Build the reference from a checkpoint: strict, and with one copy of the weights in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pargo_export.checkpoint.config_file import ConfigSource
from pargo_export.checkpoint.key_mapping import DerivedKind, official_name
from pargo_export.checkpoint.reader import OpenedCheckpoint, VisionSource, open_checkpoint
from pargo_export.checkpoint.source import StoredTensor
from pargo_export.checkpoint.values import read_tensor
from pargo_export.config import ModelConfig, VisionConfig, VitConfig
from pargo_export.errors import StateDictError
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import RotaryEmbedding, rotary_tables

__all__ = ["expected_buffer", "load_checkpoint"]

# Stored tables differ from computed ones by the rounding of their dtype (values up to 1) and of float32 angles.
_BUFFER_TOLERANCE = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
_DECIDED_BY = {
    "rotary_cosines": "vision.image_size, patch_size, head_width, rope_theta, rope_grid and rope_interpolate",
    "rotary_sines": "vision.image_size, patch_size, head_width, rope_theta, rope_grid and rope_interpolate",
    "position_indices": "projector.max_position_embeddings",
}


def load_checkpoint(
    path: str | Path,
    config: ConfigSource | None = None,
    vision_checkpoint: VisionSource | None = None,
) -> VisualFrontEnd:
    """Load a ParGo checkpoint as the float32 reference model, in evaluation mode.

    Args:
        path: A `.pt`, `.pth`, `.bin`, `.ckpt` or `.safetensors` file, an index of shards, or a directory.
        config: A JSON file, its content, a preset or a `ModelConfig`; `None`: from the metadata of the file, a
            JSON file beside it, or the preset whose shapes are the same.
        vision_checkpoint: An EVA-CLIP checkpoint that holds the tower, if `path` does not; or a directory of
            `transformers` with the CLIP or SigLIP vision model that is the tower (docs/towers.md).

    Returns:
        The model. Its `report` says what was read and what was left out.

    Raises:
        UnsafeCheckpointError: Reading a file would execute code.
        CheckpointError: A file is missing, ambiguous, broken or no checkpoint.
        StateDictError: Tensors are missing, unexpected, misshapen, not finite or of the wrong dtype.
        ConfigError: The configuration is incomplete, unknown, or contradicts itself or the checkpoint.
    """
    opened = open_checkpoint(path, config, vision_checkpoint)
    with torch.device("meta"):
        model = VisualFrontEnd(opened.config)
    _check_names_and_shapes(model, opened, Path(path))
    _check_buffers(opened, Path(path))
    loaded = opened.load()
    model.load_state_dict(loaded.state_dict, strict=True, assign=True)
    _compute_buffers(model)
    model.report, model.pictures = loaded.report, opened.pictures
    return model.eval().requires_grad_(requires_grad=False)


def expected_buffer(kind: DerivedKind, config: ModelConfig) -> Tensor:
    """Compute a buffer that official checkpoints store although the configuration determines it."""
    if kind == "position_indices":
        return torch.arange(config.projector.max_position_embeddings)[None]
    if not isinstance(config.vision, VisionConfig):
        raise StateDictError(
            f"the checkpoint stores rotary tables, which a {config.vision.kind} tower does not have; it belongs to an "
            "EVA-02: leave the vision model out"
        )
    cosines, sines = rotary_tables(config.vision)
    return cosines if kind == "rotary_cosines" else sines


def _check_names_and_shapes(model: VisualFrontEnd, opened: OpenedCheckpoint, path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    is_vit = isinstance(model.config.vision, VitConfig)
    missing = [official_name(name, vit=is_vit) for name in expected if name not in opened.weights]
    surplus = [tensor.key for name, tensor in opened.weights.items() if name not in expected]
    unexpected = surplus + [tensor.key for tensor in opened.unexpected.values()]
    misshapen = [
        f"{tensor.key} (found {list(tensor.shape)}, expected {list(expected[name])})"
        for name, tensor in opened.weights.items()
        if name in expected and tensor.shape != expected[name]
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise StateDictError(
            f"{path}: the tensors do not fit the configuration. {'. '.join(problems)}.{_hint(missing, is_vit=is_vit)}"
        )


def _hint(missing: list[str], *, is_vit: bool) -> str:
    tower = official_name("tower.embedding.position", vit=is_vit)
    if tower in missing and is_vit:
        return " The vision tower is missing: give the directory of the vision model (--vision-model)"
    if tower in missing:
        return (
            " The vision tower is missing: give its own checkpoint (--vision-checkpoint, vision_checkpoint=)"
        )
    return " Check that the configuration is the one of this checkpoint and that the file is whole"


def _check_buffers(opened: OpenedCheckpoint, path: Path) -> None:
    """Compare every copy of the derived buffers with what the configuration implies."""
    expected: dict[DerivedKind, Tensor] = {}
    problems = []
    for name, (kind, tensor) in opened.buffers.items():
        if kind not in expected:
            expected[kind] = expected_buffer(kind, opened.config)
        problem = _difference(tensor, expected[kind])
        if problem:
            problems.append(f"{name} {problem} (decided by {_DECIDED_BY[kind]})")
    if problems:
        raise StateDictError(
            f"{path}: {len(problems)} stored buffers are not what the configuration implies: {'; '.join(problems)}; "
            "correct the configuration"
        )


def _difference(tensor: StoredTensor, expected: Tensor) -> str:
    if tensor.shape != tuple(expected.shape):
        return f"has shape {list(tensor.shape)}, expected {list(expected.shape)}"
    error = float((read_tensor(tensor).double() - expected.double()).abs().max())
    tolerance = _BUFFER_TOLERANCE.get(tensor.dtype, 0.0)
    return "" if error <= tolerance else f"differs by {error:.3g}, at most {tolerance:g} is rounding"


def _compute_buffers(model: VisualFrontEnd) -> None:
    """Give every block its rotary tables: they are not part of the state dict, so they are still on `meta`."""
    if not isinstance(model.config.vision, VisionConfig):
        return
    cosines, sines = rotary_tables(model.config.vision)
    for module in model.modules():
        if isinstance(module, RotaryEmbedding):
            module.cos, module.sin = cosines, sines
