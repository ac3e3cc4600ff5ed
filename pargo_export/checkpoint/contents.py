"""The tensors of a checkpoint sorted by their role, and two checkpoints put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pargo_export.checkpoint.key_mapping import (
    Derived,
    DerivedKind,
    OtherPart,
    Weight,
    canonical_names,
    classify,
    is_clip_file,
)
from pargo_export.checkpoint.source import StoredTensor, TensorSource
from pargo_export.checkpoint.values import differing_keys
from pargo_export.config import ModelConfig, VitConfig
from pargo_export.errors import StateDictError

__all__ = ["Contents", "leave_out_unused", "merge_vision", "sort_tensors"]

_TOWER = "tower."
_BLOCKS = "tower.blocks."
_FINAL_NORM = "tower.final_norm."
_MAX_NAMED = 5


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes:
        weights: Weights of the front-end under our names.
        buffers: Derived buffers under their official names, with what they hold.
        others: Tensors of other parts, each with the name of its part.
        unexpected: The rest, under official names.
        container: How the tensors were wrapped.
        notes: What a reader of the report should know.
    """

    weights: Mapping[str, StoredTensor]
    buffers: Mapping[str, tuple[DerivedKind, StoredTensor]]
    others: tuple[tuple[str, StoredTensor], ...]
    unexpected: Mapping[str, StoredTensor]
    container: str
    notes: tuple[str, ...]


def sort_tensors(source: TensorSource) -> Contents:
    """Sort tensors by their role.

    Raises:
        StateDictError: Two stored keys mean the same tensor.
    """
    names = canonical_names(source.tensors, container=source.container)
    by_name: dict[str, StoredTensor] = {}
    for key, name in names.items():
        if name in by_name:
            raise StateDictError(
                f"{source.files[0]}: {by_name[name].key} and {key} both mean {name}; remove the one that is not wanted"
            )
        by_name[name] = source.tensors[key]
    clip = is_clip_file(source.tensors)
    weights: dict[str, StoredTensor] = {}
    buffers: dict[str, tuple[DerivedKind, StoredTensor]] = {}
    others: list[tuple[str, StoredTensor]] = []
    unexpected: dict[str, StoredTensor] = {}
    for name, tensor in by_name.items():
        role = classify(name, clip=clip)
        if isinstance(role, Weight):
            weights[role.name] = tensor
        elif isinstance(role, Derived):
            buffers[name] = (role.kind, tensor)
        elif isinstance(role, OtherPart):
            others.append((role.group, tensor))
        else:
            unexpected[name] = tensor
    return Contents(weights, buffers, tuple(others), unexpected, source.container, source.notes)


def leave_out_unused(contents: Contents, config: ModelConfig) -> Contents:
    """Move what a CLIP or SigLIP tower has beyond its features to the tensors of other parts."""
    vision = config.vision
    if not isinstance(vision, VitConfig):
        return contents
    kept, others = {}, []
    for name, tensor in contents.weights.items():
        block = name.removeprefix(_BLOCKS).partition(".")[0] if name.startswith(_BLOCKS) else ""
        if block and int(block) >= vision.num_layers:
            others.append(("blocks of the tower behind the image features", tensor))
        elif name.startswith(_FINAL_NORM) and not vision.has_final_norm:
            others.append(("last norm of the tower", tensor))
        else:
            kept[name] = tensor
    return replace(contents, weights=kept, others=(*contents.others, *others))


def merge_vision(main: Contents, vision: Contents) -> Contents:
    """Complete a checkpoint with the tower of another; the main one wins where both hold the same.

    Raises:
        StateDictError: Both hold tower weights and they differ, or the second holds no tower.
    """
    tower = {name: tensor for name, tensor in vision.weights.items() if name.startswith(_TOWER)}
    if not tower:
        raise StateDictError(
            "the vision checkpoint holds no weights of a vision tower; expected an EVA-CLIP checkpoint, or "
            "a directory of transformers with a CLIP or SigLIP vision model"
        )
    differing = differing_keys(tower, main.weights)
    if differing:
        keys = ", ".join(main.weights[name].key for name in differing[:_MAX_NAMED])
        raise StateDictError(
            f"both checkpoints hold the vision tower and {len(differing)} of its weights differ, the first ones: {keys}; "
            "leave the vision checkpoint out to use the tower of the main one"
        )
    common = sum(name in main.weights for name in tower)
    buffers = {name: found for name, found in vision.buffers.items() if name not in main.buffers}
    left_out = [
        ("other weights of the vision checkpoint", vision.weights[name])
        for name in vision.weights
        if name not in tower
    ]
    notes = []
    if common < len(tower):
        notes.append(f"{len(tower) - common} tower weights come from the vision checkpoint")
    if common:
        notes.append(f"{common} tower weights are in both checkpoints and the same")
    return replace(
        main,
        weights={**tower, **main.weights},
        buffers={**main.buffers, **buffers},
        others=(*main.others, *vision.others, *left_out),
        unexpected={**main.unexpected, **vision.unexpected},
        container=f"{main.container} + {vision.container}",
        notes=(*main.notes, *vision.notes, *notes),
    )
