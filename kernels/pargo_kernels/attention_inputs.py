"""Which tensors the attention kernels take, in words, and the sizes that both are cut by; needs no Triton."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "DTYPES",
    "cdiv",
    "explain_attention_inputs",
    "most_rows",
    "next_power_of_2",
    "padded_head_dim",
    "token_strides",
]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MAX_HEAD_DIM = 256
_MAX_OFFSET = 2**31 - 1  # offsets inside one image are 32-bit; the offset of an image is 64-bit


def explain_attention_inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
) -> str | None:
    """Say what keeps both attention kernels from taking these inputs; `None` if nothing does.

    Args:
        query: `[B or 1, Q, H*D]`, Q = P + G.
        key: `[B, N, H*D]`.
        value: `[B, N, H*D]`.
        num_heads: H.
        num_partial: P.
        num_global: G.
        scale: Factor on the scores.

    Returns:
        One sentence with what was found, what is expected and how to mend it.
    """
    if not math.isfinite(scale):
        return f"scale is {scale}, expected a finite number; the usual one is head_size ** -0.5"
    named = {"query": query, "key": key, "value": value}
    return (
        _explain_layout(named)
        or _explain_shapes(query, key, value)
        or _explain_sizes(query, num_heads, num_partial, num_global)
    )


def _explain_layout(named: dict[str, Tensor]) -> str | None:
    for name, tokens in named.items():
        if tokens.dim() != 3:
            return f"{name} has shape {list(tokens.shape)}, expected [batch, tokens, heads * head size]; merge its heads"
        if tokens.dtype not in DTYPES:
            return f"{name} is {tokens.dtype}, expected float16, bfloat16 or float32; convert it first"
        if tokens.stride(2) != 1 and tokens.shape[2] > 1:
            return f"the channels of {name} are {tokens.stride(2)} elements apart, expected 1; call .contiguous()"
        if (tokens.shape[1] - 1) * tokens.stride(1) + tokens.shape[2] > _MAX_OFFSET:
            return (
                f"one image of {name} spans more than 2^31 elements; split its tokens or call .contiguous()"
            )
    for what in ("dtype", "device"):
        found = {name: getattr(tokens, what) for name, tokens in named.items()}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {is_}" for name, is_ in found.items())
            return f"the tensors differ in {what} ({listed}), expected one; convert them first"
    return None


def _explain_shapes(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    if key.shape != value.shape:
        return f"key {list(key.shape)} and value {list(value.shape)} differ in shape; project both from one input"
    if query.shape[2] != key.shape[2]:
        return f"query has width {query.shape[2]} and key {key.shape[2]}; project both to one width"
    if query.shape[0] not in {1, key.shape[0]}:
        return (
            f"query has batch {query.shape[0]}, expected 1 or that of key, {key.shape[0]}; expand or slice it"
        )
    return None


def _explain_sizes(query: Tensor, num_heads: int, num_partial: int, num_global: int) -> str | None:
    tokens, width = query.shape[1:]
    if num_partial < 0 or num_global < 0 or tokens == 0 or num_partial + num_global != tokens:
        return (
            f"query has {tokens} tokens, but num_partial={num_partial} and num_global={num_global}; "
            "expected non-negative counts that add up to the tokens, at least 1"
        )
    if num_heads < 1 or width == 0 or width % num_heads:
        return (
            f"width {width} is not a positive multiple of num_heads={num_heads}; pass the heads of the model"
        )
    if width // num_heads > _MAX_HEAD_DIM:
        return f"the head size is {width // num_heads}, expected at most {_MAX_HEAD_DIM}; use the reference"
    return None


def cdiv(number: int, divisor: int) -> int:
    """Divide and round up."""
    return -(-number // divisor)


def next_power_of_2(number: int) -> int:
    """Round up to a power of two, at least 1."""
    return 1 << max(number - 1, 0).bit_length()


def padded_head_dim(head_dim: int) -> int:
    """Channels of a head as the kernels hold it: a power of two, 16 or more for the matrix products."""
    return max(16, next_power_of_2(head_dim))


def most_rows(head_dim: int, dtype: torch.dtype) -> int:
    """Queries of one program whose sums four warps hold in registers: 16 to 64.

    float32 products have no tensor cores and keep their operands in registers too.
    """
    sums = 2048 if dtype == torch.float32 else 8192
    return max(16, min(64, sums // padded_head_dim(head_dim)))


def token_strides(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """Elements between two images and between two tokens, of query, key and value in turn.

    Between the queries of two images it is 0 if one query serves them all.
    """
    shared = query.shape[0] == 1 and key.shape[0] > 1
    return (0 if shared else query.stride(0), query.stride(1), *key.stride()[:2], *value.stride()[:2])
