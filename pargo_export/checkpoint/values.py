"""Turn stored tensors into float32 weights, and refuse those that are no weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pargo_export.checkpoint.source import StoredTensor
from pargo_export.errors import CheckpointError, StateDictError

__all__ = ["FLOAT_DTYPES", "differing_keys", "read_tensor", "read_weights", "refuse_dtypes"]

FLOAT_DTYPES = ("float32", "float16", "bfloat16", "float64")


def read_tensor(tensor: StoredTensor) -> Tensor:
    """Read one tensor as it is stored.

    Raises:
        CheckpointError: Its bytes are not there.
    """
    try:
        return tensor.read()
    except Exception as error:  # safetensors and torch raise many kinds on files that changed under them
        raise CheckpointError(
            f"checkpoint tensor {tensor.key} cannot be read: {error}; copy the file again"
        ) from error


def refuse_dtypes(tensors: Mapping[str, StoredTensor]) -> None:
    """Check that every weight is stored in a float dtype.

    Raises:
        StateDictError: Some are not; all are named.
    """
    wrong = [
        f"{tensor.key} ({tensor.dtype})" for tensor in tensors.values() if tensor.dtype not in FLOAT_DTYPES
    ]
    if wrong:
        raise StateDictError(
            f"{len(wrong)} weights are stored in a dtype that is not supported: {', '.join(wrong)}; expected "
            f"{', '.join(FLOAT_DTYPES)}. Quantized weights cannot be restored: export from the float checkpoint"
        )


def read_weights(tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Read weights as contiguous float32; those stored so stay mapped to their file.

    Raises:
        StateDictError: Some hold NaN or infinity; all are named.
        CheckpointError: A tensor cannot be read.
    """
    weights: dict[str, Tensor] = {}
    broken = []
    for name, tensor in tensors.items():
        weight = read_tensor(tensor).to(torch.float32).contiguous()
        # A sum is finite unless an element is not (or it overflows, which the exact count settles).
        if not torch.isfinite(weight.sum()):
            num_nan, num_infinite = int(weight.isnan().sum()), int(weight.isinf().sum())
            if num_nan or num_infinite:
                broken.append(f"{tensor.key} ({num_nan} NaN, {num_infinite} infinite of {weight.numel()})")
        weights[name] = weight
    if broken:
        raise StateDictError(
            f"{len(broken)} weights are not finite in float32: {', '.join(broken)}; the training diverged or the file "
            "is damaged: use an earlier checkpoint or copy it again"
        )
    return weights


def differing_keys(first: Mapping[str, StoredTensor], second: Mapping[str, StoredTensor]) -> list[str]:
    """Return the common names whose tensors differ, compared in the narrower of the two dtypes."""
    return [name for name in first if name in second and not _is_same(first[name], second[name])]


def _is_same(first: StoredTensor, second: StoredTensor) -> bool:
    if first.shape != second.shape:
        return False
    left, right = read_tensor(first), read_tensor(second)
    narrow = min(left.dtype, right.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(left.to(narrow), right.to(narrow))
