"""Files that `torch.save` wrote: `.pt`, `.pth`, `.bin`, `.ckpt`. No code in them is executed."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pargo_export.checkpoint.describe import describe_content
from pargo_export.checkpoint.source import StoredTensor, TensorSource
from pargo_export.errors import CheckpointError, UnsafeCheckpointError

__all__ = ["read_torch_file", "stored_tensor"]

_ZIP_SIGNATURE = b"PK\x03\x04"
_PICKLE_SIGNATURE = b"\x80"
_CONTAINERS = ("state_dict", "model", "module")
_MAX_DEPTH = 3
# Names that the restricted unpickler of PyTorch itself needs; they are never the reason for a refusal.
_TENSOR_GLOBALS = re.compile(
    r"(torch\.(_utils\.\w+|storage\.\w+|\w+Storage|nn\.parameter\.Parameter)|collections\.OrderedDict)"
)


def read_torch_file(path: Path) -> TensorSource:
    """Open a file of `torch.save` without executing anything in it; tensors are mapped, not read.

    Containers are opened: `{"state_dict": ...}`, `{"model": ...}`, `{"module": ...}` or a bare state dict.

    Raises:
        UnsafeCheckpointError: Reading the file would execute code; what it wanted to call is named.
        CheckpointError: The file is broken, is something else, or holds no state dict.
    """
    loaded = _load_without_code(path)
    values, names, extra = _open_container(path, loaded)
    tensors = {key: stored_tensor(key, value) for key, value in values.items() if isinstance(value, Tensor)}
    extra += [key for key in values if key not in tensors]
    notes = [f"{path.name} also holds {', '.join(map(str, extra))}: not tensors, not read"] if extra else []
    container = "/".join(names) or "state dict"
    return TensorSource(files=(path,), tensors=tensors, container=container, notes=tuple(notes))


def stored_tensor(key: str, tensor: Tensor) -> StoredTensor:
    """Describe a tensor in memory (or mapped into it)."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided:
        kind += f" ({str(tensor.layout).removeprefix('torch.')})"
    return StoredTensor(key, tuple(tensor.shape), kind, tensor.detach)


def _load_without_code(path: Path) -> Any:
    with path.open("rb") as stream:
        is_zip = stream.read(4) == _ZIP_SIGNATURE  # only these can be mapped instead of read
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # remarks on pickle protocols, about files not made here
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        names = _refused_globals(path, is_zip=is_zip)
        if names:
            raise UnsafeCheckpointError(_refusal(path, names)) from error
        raise CheckpointError(_unreadable(path, error)) from error
    except Exception as error:  # torch.load raises nearly every built-in exception on broken files
        if "TorchScript" in str(error):
            raise UnsafeCheckpointError(_refusal(path, ["TorchScript code"])) from error
        raise CheckpointError(_unreadable(path, error)) from error


def _refusal(path: Path, names: list[str]) -> str:
    return (
        f"{path}: refused, because reading it would call {', '.join(names)}; expected tensors only. If you trust "
        "where it comes from, re-save it where it was made as a plain state dict of tensors "
        "(torch.save(model.state_dict(), ...)) or as .safetensors (safetensors.torch.save_file)"
    )


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    operand = re.search(r"Unsupported operand \d+", text)
    with path.open("rb") as stream:
        is_pickle = stream.read(4).startswith((_ZIP_SIGNATURE, _PICKLE_SIGNATURE))
    if operand and is_pickle:
        return (
            f"{path}: found a pickle protocol that cannot be read without executing code, expected the default of "
            f"torch.save (2); save it again without pickle_protocol, or as .safetensors ({operand.group()})"
        )
    return (
        f"{path}: found {describe_content(path)} that cannot be read, expected a complete file of torch.save; "
        f"copy or download it again and compare its size with the original ({text.splitlines()[0][:200]})"
    )


def _open_container(path: Path, loaded: Any) -> tuple[Mapping[str, Any], list[str], list[str]]:
    """Return the state dict, the names of the containers around it and what else they hold."""
    names: list[str] = []
    extra: list[str] = []
    while len(names) < _MAX_DEPTH and isinstance(loaded, Mapping):
        found = [name for name in _CONTAINERS if isinstance(loaded.get(name), Mapping)]
        if len(found) > 1:
            raise CheckpointError(
                f"{path}: found the containers {' and '.join(found)} side by side, expected one; "
                "re-save the one that is wanted as a plain state dict"
            )
        if not found:
            break
        names.append(found[0])
        extra += [str(key) for key in loaded if key != found[0]]
        loaded = loaded[found[0]]
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise CheckpointError(
            f"{path}: found a {type(loaded).__name__}, expected a state dict (names to tensors), "
            f"bare or under {', '.join(map(repr, _CONTAINERS))}; save model.state_dict()"
        )
    if not any(isinstance(value, Tensor) for value in loaded.values()):
        keys = ", ".join(list(loaded)[:10]) or "nothing"
        raise CheckpointError(
            f"{path}: found a dictionary without tensors (it holds {keys}), expected a state dict, "
            f"bare or under {', '.join(map(repr, _CONTAINERS))}; save model.state_dict()"
        )
    return loaded, names, extra


def _refused_globals(path: Path, *, is_zip: bool) -> list[str]:
    """Name what a file wanted to call; nothing if the file is simply broken."""
    if not is_zip:
        with path.open("rb") as stream:
            return _foreign(_pickled_globals(stream))
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except pickle.UnpicklingError:  # a pickle protocol that PyTorch does not parse
        return _foreign(_pickled_globals(io.BytesIO(_main_pickle(path))))
    except Exception:  # noqa: BLE001 - a broken archive raises nearly everything, and is reported as unreadable
        return []


def _main_pickle(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError):
        return b""  # broken: reported as unreadable


def _foreign(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if not _TENSOR_GLOBALS.fullmatch(name)})


def _pickled_globals(stream: BinaryIO) -> Iterator[str]:
    """Name every global of the pickles at the head of a file (old torch files hold several), without running them."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    try:
        while True:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    yield str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")
                elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                    yield ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
                elif opcode.name == "MEMOIZE" and strings:
                    memo[len(memo)] = strings[-1]
                elif opcode.name in ("BINGET", "LONG_BINGET") and argument in memo:
                    strings.append(memo[argument])
    except (ValueError, IndexError, MemoryError, OverflowError, EOFError, struct.error):
        return  # the end of the pickles: tensor bytes follow, or the file is cut
