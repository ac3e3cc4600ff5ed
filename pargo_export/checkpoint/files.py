"""Find the files of a checkpoint: one file, an index with its shards, or a directory that holds either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from pargo_export.checkpoint.safetensors_files import read_safetensors_file
from pargo_export.checkpoint.source import StoredTensor, TensorSource
from pargo_export.checkpoint.torch_files import read_torch_file
from pargo_export.errors import CheckpointError

__all__ = ["open_source"]

_READERS: dict[str, Callable[[Path], TensorSource]] = {
    ".bin": read_torch_file,
    ".ckpt": read_torch_file,
    ".pt": read_torch_file,
    ".pth": read_torch_file,
    ".safetensors": read_safetensors_file,
}
_INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
_KINDS = f"{', '.join(_READERS)} or an index (*{', *'.join(_INDEX_SUFFIXES)})"
# What training frameworks write beside the weights.
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")


def open_source(path: str | Path) -> TensorSource:
    """Open the checkpoint at `path` without reading its tensors.

    Args:
        path: A `.pt`, `.pth`, `.bin`, `.ckpt` or `.safetensors` file, an index of shards, or a directory that
            holds one of these.

    Raises:
        UnsafeCheckpointError: Reading it would execute code.
        CheckpointError: It is missing, ambiguous, broken or no checkpoint.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory; expected a checkpoint, {_KINDS}")
    if path.is_dir():
        path = _only_checkpoint(path)
    try:
        if path.name.endswith(_INDEX_SUFFIXES):
            return _open_index(path)
        if path.suffix.lower() not in _READERS:
            raise CheckpointError(f"{path}: found the suffix {path.suffix!r}, expected {_KINDS}")
        return _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _only_checkpoint(directory: Path) -> Path:
    indices = sorted(item for item in directory.iterdir() if item.name.endswith(_INDEX_SUFFIXES))
    shards = {name for index in indices for name in set(_weight_map(index).values())}
    files = sorted(
        item
        for item in directory.iterdir()
        if item.suffix.lower() in _READERS
        and item.name not in shards
        and not item.name.startswith(_NO_WEIGHTS)
    )
    candidates = indices + files
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        found = ", ".join(sorted(item.name for item in directory.iterdir())[:10]) or "nothing"
        raise CheckpointError(
            f"{directory}: found no checkpoint in the directory ({found}), expected {_KINDS}"
        )
    names = ", ".join(item.name for item in candidates)
    raise CheckpointError(
        f"{directory}: found several checkpoints ({names}), expected one; give the path of one file"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Read which shard holds which tensor; shards lie in the directory of the index or below it."""
    try:
        content = json.loads(index.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{index}: cannot be read as JSON: {error}; copy or download it again"
        ) from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(
            f"{index}: found no weight_map (tensor names to file names); copy or download it again"
        )
    for name in sorted(set(weight_map.values())):
        pure, windows = PurePosixPath(name), PureWindowsPath(name)
        if pure.is_absolute() or windows.drive or windows.root or ".." in (*pure.parts, *windows.parts):
            raise CheckpointError(
                f"{index}: names the shard {name!r}, expected a file in its own directory; the index is not trustworthy"
            )
    return weight_map


def _open_index(index: Path) -> TensorSource:
    weight_map = _weight_map(index)
    names = sorted(set(weight_map.values()))
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index}: found {len(names) - len(absent)} of {len(names)} shards, missing: {', '.join(absent)}"
        )
    unknown = [name for name in names if Path(name).suffix.lower() not in _READERS]
    if unknown:
        raise CheckpointError(
            f"{index}: names the shards {', '.join(unknown)}, expected {', '.join(_READERS)}"
        )
    shards = {name: _READERS[Path(name).suffix.lower()](index.parent / name) for name in names}
    problems = [
        f"{key} is not in {name}" for key, name in weight_map.items() if key not in shards[name].tensors
    ]
    problems += [
        f"{key} in {name} is not in the index"
        for name, shard in shards.items()
        for key in shard.tensors
        if weight_map.get(key) != name
    ]
    if problems:
        raise CheckpointError(f"{index}: index and shards disagree: {'; '.join(problems)}")
    tensors: dict[str, StoredTensor] = {key: shards[name].tensors[key] for key, name in weight_map.items()}
    metadata = {key: text for shard in shards.values() for key, text in shard.metadata.items()}
    notes = tuple(note for shard in shards.values() for note in shard.notes)
    files = (index, *(index.parent / name for name in names))
    return TensorSource(files, tensors, metadata, f"{len(shards)} shards", notes)
