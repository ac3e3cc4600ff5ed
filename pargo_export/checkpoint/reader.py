"""Open a checkpoint, sort its tensors, settle its configuration, read its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from pargo_export.checkpoint.config_file import ConfigSource
from pargo_export.checkpoint.config_search import find_config
from pargo_export.checkpoint.contents import Contents, leave_out_unused, merge_vision, sort_tensors
from pargo_export.checkpoint.files import open_source
from pargo_export.checkpoint.inference import infer_facts
from pargo_export.checkpoint.key_mapping import DerivedKind
from pargo_export.checkpoint.report import CheckpointReport, count_dtypes, count_groups, hash_file
from pargo_export.checkpoint.resolution import resolve_config
from pargo_export.checkpoint.source import StoredTensor, TensorSource
from pargo_export.checkpoint.values import read_weights, refuse_dtypes
from pargo_export.checkpoint.vision_model import VisionModel, is_vision_model, open_vision_model
from pargo_export.config import ModelConfig
from pargo_export.preprocessing import PictureDefaults

__all__ = ["LoadedCheckpoint", "OpenedCheckpoint", "VisionSource", "open_checkpoint", "read_checkpoint"]

VisionSource: TypeAlias = str | Path | VisionModel


@dataclass(frozen=True)
class LoadedCheckpoint:
    """Weights and what belongs to them.

    Attributes:
        config: The complete configuration.
        state_dict: Weights under our names, float32.
        report: What was read and what was left out.
    """

    config: ModelConfig
    state_dict: dict[str, Tensor]
    report: CheckpointReport


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint of which only shapes and dtypes were read.

    Attributes:
        config: The complete configuration.
        config_source: Where it came from.
        contents: The tensors, sorted by their role.
        files: Every file that takes part.
        notes: What a reader of the report should know.
        pictures: How the tower wants its pictures, if a directory of its own says so.
    """

    config: ModelConfig
    config_source: str
    contents: Contents
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    pictures: PictureDefaults | None = None

    @property
    def weights(self) -> Mapping[str, StoredTensor]:
        """Weights under our names."""
        return self.contents.weights

    @property
    def buffers(self) -> Mapping[str, tuple[DerivedKind, StoredTensor]]:
        """Buffers that the configuration determines, under their official names."""
        return self.contents.buffers

    @property
    def unexpected(self) -> Mapping[str, StoredTensor]:
        """Tensors that belong to nothing known, under their official names."""
        return self.contents.unexpected

    def load(self) -> LoadedCheckpoint:
        """Read the weights and hash the files.

        Raises:
            StateDictError: Weights are not finite or not in a float dtype.
            CheckpointError: A tensor cannot be read.
        """
        refuse_dtypes(self.weights)
        state_dict = read_weights(self.weights)
        report = CheckpointReport(
            files=tuple(hash_file(path) for path in self.files),
            container=self.contents.container,
            config_source=self.config_source,
            num_tensors=len(state_dict),
            num_parameters=sum(weight.numel() for weight in state_dict.values()),
            num_buffers=len(self.buffers),
            stored_dtypes=count_dtypes(self.weights.values()),
            ignored=count_groups(self.contents.others),
            notes=self.notes,
        )
        return LoadedCheckpoint(self.config, state_dict, report)


def open_checkpoint(
    path: str | Path,
    config: ConfigSource | None = None,
    vision_checkpoint: VisionSource | None = None,
) -> OpenedCheckpoint:
    """Open a checkpoint and settle its configuration, without reading its weights.

    Args:
        path: A file, an index of shards or a directory.
        config: A JSON file, its content, a preset or a `ModelConfig`; `None`: from the metadata of the file, a
            JSON file beside it, or the preset whose shapes are the same.
        vision_checkpoint: An EVA-CLIP checkpoint that holds the tower, if `path` does not; or a directory of
            `transformers` with the CLIP or SigLIP vision model that is the tower (`open_vision_model` opens one at
            another layer than the usual one).

    Raises:
        UnsafeCheckpointError: Reading a file would execute code.
        CheckpointError: A file is missing, ambiguous, broken or no checkpoint.
        StateDictError: Both checkpoints hold a tower and the two differ.
        ConfigError: The configuration is incomplete, unknown, or contradicts itself or the checkpoint.
    """
    source = open_source(path)
    contents = sort_tensors(source)
    files = source.files
    model: VisionModel | None = None
    if vision_checkpoint is not None:
        model, vision = _open_vision(vision_checkpoint)
        contents = merge_vision(contents, sort_tensors(vision))
        files += vision.files
    rotary = (tensor for kind, tensor in contents.buffers.values() if kind == "rotary_cosines")
    facts = infer_facts(contents.weights, next(rotary, None))
    tower = None if model is None else model.config
    statements = find_config(config, source, facts, tower)
    resolved = resolve_config(statements, facts, tower)
    contents = leave_out_unused(contents, resolved)
    notes = (*contents.notes, *statements.notes)
    pictures = None if model is None else model.pictures
    return OpenedCheckpoint(resolved, statements.source, contents, files, notes, pictures)


def _open_vision(vision: VisionSource) -> tuple[VisionModel | None, TensorSource]:
    if isinstance(vision, VisionModel):
        return vision, vision.source
    if is_vision_model(vision):
        model = open_vision_model(vision)
        return model, model.source
    return None, open_source(vision)


def read_checkpoint(
    path: str | Path,
    config: ConfigSource | None = None,
    vision_checkpoint: VisionSource | None = None,
) -> LoadedCheckpoint:
    """Open a checkpoint and read its weights; arguments and errors are those of `open_checkpoint` and `load`.

    Whether the weights are complete is for who builds the model: see `pargo_export.model.loading`.
    """
    return open_checkpoint(path, config, vision_checkpoint).load()
