"""`.safetensors` files: only the tensors that are asked for are read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pargo_export.checkpoint.describe import describe_content
from pargo_export.checkpoint.source import StoredTensor, TensorSource
from pargo_export.errors import CheckpointError

__all__ = ["read_safetensors_file"]

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def read_safetensors_file(path: Path) -> TensorSource:
    """Open a safetensors file; it stays mapped as long as one of its tensors is referenced.

    Raises:
        CheckpointError: The file is cut, broken or something else.
    """
    try:
        opened: Any = safe_open(path, framework="pt", device="cpu")  # its methods carry no types
        tensors = {}
        for key in opened.keys():  # noqa: SIM118 - the handle is no mapping
            slot = opened.get_slice(key)
            dtype = _DTYPES.get(slot.get_dtype(), slot.get_dtype())
            tensors[key] = StoredTensor(key, tuple(slot.get_shape()), dtype, partial(opened.get_tensor, key))
        metadata = opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: found {describe_content(path)} that cannot be read, expected a complete safetensors file; "
            f"copy or download it again and compare its size with the original ({error})"
        ) from error
    return TensorSource(files=(path,), tensors=tensors, metadata=metadata, container="safetensors")
