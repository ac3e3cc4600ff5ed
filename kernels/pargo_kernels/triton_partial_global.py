"""Cross-attention of ParGo in one launch: checks, how the work is cut, and the launch.

The kernel is in `triton_partial_global_kernel.py`, the choice of tiles and splits in
`partial_global_plan.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pargo_kernels.attention_inputs import (
    cdiv,
    explain_attention_inputs,
    padded_head_dim,
    token_strides,
)
from pargo_kernels.partial_global_plan import (
    SplitWorkspace,
    Tiles,
    choose_num_splits,
    choose_tiles,
    make_workspace,
    workspace_sizes,
)
from pargo_kernels.triton_attend import LOG2_E
from pargo_kernels.triton_common import KernelCall
from pargo_kernels.triton_dependent import dependent_launch
from pargo_kernels.triton_device import INTERPRETED, device_guard
from pargo_kernels.triton_partial_global_kernel import partial_global_kernel

__all__ = [
    "explain_partial_global_attention",
    "launch_arguments",
    "partial_global_attention",
    "partial_global_kernel",
]


def explain_partial_global_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
) -> str | None:
    """Say why the kernel cannot take this input, or return `None` if it can.

    Takes what `partial_global_attention` takes. The sentence says what was found, what is expected and how to
    mend it.
    """
    reason = explain_attention_inputs(
        query, key, value, num_heads=num_heads, num_partial=num_partial, num_global=num_global, scale=scale
    )
    if reason:
        return reason
    num_keys = key.shape[1]
    if num_keys == 0:
        return "key has no tokens, expected at least 1; pass the image tokens"
    if num_partial and num_keys % num_partial:
        return f"{num_keys} keys do not divide into num_partial={num_partial} windows; pass a multiple of it"
    return None


def launch_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    tiles: Tiles | None = None,
    num_splits: int | None = None,
    workspace: SplitWorkspace | None = None,
) -> KernelCall:
    """Return how to launch the kernel; of the tensors only shapes, strides, dtype and device matter.

    Args:
        query: `[B or 1, Q, H*D]`.
        key: `[B, N, H*D]`.
        value: `[B, N, H*D]`.
        output: `[B, Q, H*D]`, contiguous.
        num_heads: H.
        num_partial: P.
        num_global: G.
        scale: Factor on the scores.
        tiles: How the work is cut; chosen by size by default.
        num_splits: Programs that share the keys of a global query; by default 1 without a workspace, and
            chosen by size with one.
        workspace: From `make_workspace` with the same sizes; allocated if `num_splits` asks for one.

    Raises:
        ValueError: `num_splits` is not positive, or the workspace is too small.
    """
    batch, num_keys = key.shape[:2]
    head_dim, programs = query.shape[2] // num_heads, batch * num_heads
    tiles = tiles or choose_tiles(
        programs,
        num_partial=num_partial,
        num_global=num_global,
        num_keys=num_keys,
        head_dim=head_dim,
        dtype=query.dtype,
    )
    if num_splits is None:
        num_splits = 1
        if workspace is not None:
            num_splits = choose_num_splits(programs, num_global=num_global, num_keys=num_keys, tiles=tiles)
    if num_splits < 1:
        raise ValueError(f"num_splits is {num_splits}, expected at least 1; leave it out to have it chosen")
    needed = workspace_sizes(num_splits, programs, num_global=num_global, head_dim=head_dim, tiles=tiles)
    if needed == (0, 0):
        workspace = None
    elif workspace is None:
        workspace = make_workspace(*needed, device=query.device)
    elif workspace.sums.numel() < needed[0] or workspace.counters.numel() < needed[1]:
        found = workspace.sums.numel(), workspace.counters.numel()
        raise ValueError(f"the workspace holds {found} elements, needed are {needed}; use make_workspace")
    blocks = cdiv(num_global, tiles.block_global) * num_splits
    arguments = (
        *(query, key, value, output),
        *((workspace.sums, workspace.counters) if workspace else (None, None)),
        *token_strides(query, key, value),
        scale * LOG2_E,
    )
    options = {
        "NUM_HEADS": num_heads,
        "HEAD_DIM": head_dim,
        "NUM_PARTIAL": num_partial,
        "NUM_GLOBAL": num_global,
        "NUM_KEYS": num_keys,
        "NUM_SPLITS": num_splits,
        "BLOCK_DIM": padded_head_dim(head_dim),
        "BLOCK_PARTIAL": tiles.block_partial,
        "BLOCK_GLOBAL": tiles.block_global,
        "BLOCK_KEY": tiles.block_key,
        "WIDEN": INTERPRETED and query.dtype == torch.bfloat16,
        "num_warps": tiles.num_warps,
        "num_stages": tiles.num_stages,
        **dependent_launch(query.device),
    }
    return KernelCall((programs, blocks + cdiv(num_partial, tiles.block_partial)), arguments, options)


def partial_global_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    tiles: Tiles | None = None,
    num_splits: int | None = None,
    workspace: SplitWorkspace | None = None,
) -> Tensor:
    """Compute `reference.partial_global_attention` in one launch.

    Scores and softmax are float32; the weights of global queries are rounded to the dtype of the inputs before
    they meet the values, sums are float32. float32 inputs are multiplied in float32, not TF32.

    Args:
        query: `[B or 1, Q, H*D]`, float16, bfloat16 or float32; any batch and row stride, channels dense.
        key: `[B, N, H*D]`, likewise; N a multiple of P.
        value: `[B, N, H*D]`, likewise.
        num_heads: H.
        num_partial: P, may be 0.
        num_global: G, may be 0.
        scale: Factor on the scores.
        tiles: How the work is cut; chosen by size by default.
        num_splits: Programs that share the keys of a global query; by default 1 without a workspace, and
            chosen by size with one.
        workspace: From `make_workspace`. Where `num_splits` needs one and none is given, it is allocated and
            its counters are filled with 0, which is a second launch.

    Returns:
        `[B, Q, H*D]`, contiguous.

    Raises:
        ValueError: The kernel does not take the inputs; the text says why.
    """
    sizes = {"num_heads": num_heads, "num_partial": num_partial, "num_global": num_global}
    if reason := explain_partial_global_attention(query, key, value, **sizes, scale=scale):
        raise ValueError(f"partial_global_attention: {reason}")
    with device_guard(query):
        output = torch.empty((key.shape[0], *query.shape[1:]), dtype=query.dtype, device=query.device)
        if output.numel():
            grid, arguments, options = launch_arguments(
                query,
                key,
                value,
                output,
                **sizes,
                scale=scale,
                tiles=tiles,
                num_splits=num_splits,
                workspace=workspace,
            )
            partial_global_kernel[grid](*arguments, **options)
    return output
