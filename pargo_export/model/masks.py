"""Who sees whom: the two attention masks that make a ParGo.

Partial tokens come first, global tokens after them (Q = P + G).

    cross-attention                          self-attention
    image tokens ->  0 1 2 3 4 5             tokens ->   p0 p1 p2 g0
    partial 0        x x . . . .             partial 0   x  x  x  .
    partial 1        . . x x . .             partial 1   x  x  x  .
    partial 2        . . . . x x             partial 2   x  x  x  .
    global  0        x x x x x x             global  0   .  .  .  x

Partial token i sees the i-th run of W = N / P consecutive image tokens in row-major order. Source:
`get_global_local_attention` of the official code (bytedance/ParGo, qformer_bert.py), pinned by golden
masks. NumPy only, so that `inspect` can draw masks on a device without PyTorch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import ConfigError

__all__ = ["additive_mask", "cross_attention_keep", "self_attention_keep", "window_size"]


def window_size(num_partial: int, num_image_tokens: int) -> int:
    """Return W, the image tokens that one partial token sees.

    Raises:
        ConfigError: The image tokens cannot be divided evenly.
    """
    if num_image_tokens % num_partial:
        raise ConfigError(
            f"{num_image_tokens} image tokens cannot be divided evenly among {num_partial} partial tokens; "
            "use a tile count whose tokens are a multiple of it"
        )
    return num_image_tokens // num_partial


def cross_attention_keep(num_partial: int, num_global: int, num_image_tokens: int) -> NDArray[np.bool_]:
    """Return `[Q, N]`: partial rows see their window, global rows see every image token."""
    keep = np.ones((num_partial + num_global, num_image_tokens), dtype=np.bool_)
    if num_partial:
        window = window_size(num_partial, num_image_tokens)
        owner = np.arange(num_image_tokens) // window
        keep[:num_partial] = owner[None, :] == np.arange(num_partial)[:, None]
    return keep


def self_attention_keep(num_partial: int, num_global: int, window: int | None = None) -> NDArray[np.bool_]:
    """Return `[Q, Q]`: partial tokens see partial tokens, global tokens see global tokens.

    Args:
        num_partial: P.
        num_global: G.
        window: Odd number of neighbouring partial tokens, centred on itself, that a partial token sees
            (the paper's cascaded partial perception); `None` means all of them, as in the released code.
    """
    is_partial = np.arange(num_partial + num_global) < num_partial
    keep: NDArray[np.bool_] = is_partial[:, None] == is_partial[None, :]
    if window is not None:
        index = np.arange(num_partial)
        near = np.abs(index[:, None] - index[None, :]) <= window // 2
        keep[:num_partial, :num_partial] &= near
    return keep


def additive_mask(keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return 0 where `keep` is true and -inf elsewhere, to be added to scaled scores before softmax."""
    return np.where(keep, np.float32(0), np.float32("-inf"))
