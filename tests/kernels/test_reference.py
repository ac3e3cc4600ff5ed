"""The mask-free attention equals dense attention under a mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tolerances import TOLERANCES

import pargo_kernels.reference
from pargo_kernels import block_diagonal_attention, partial_global_attention

SEED = 7


def random_tokens(*shape, seed=SEED, dtype=torch.float64):
    """Return standard normal tokens."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def masked_attention(query, key, value, keep, num_heads, scale):
    """Attend head by head and row by row in NumPy, float64: only what `keep` [Q, N] allows takes part."""
    query, key, value = (np.asarray(tokens.double()) for tokens in (query, key, value))
    batch, width = key.shape[0], key.shape[2]
    dim = width // num_heads
    output = np.full((batch, query.shape[1], width), np.nan)
    for image in range(batch):
        for head in range(num_heads):
            channels = slice(head * dim, (head + 1) * dim)
            for row in range(query.shape[1]):
                seen = [index for index in range(key.shape[1]) if keep[row][index]]
                scores = key[image, seen, channels] @ query[image % len(query), row, channels] * scale
                weights = np.exp(scores - scores.max())
                output[image, row, channels] = weights / weights.sum() @ value[image, seen, channels]
    return torch.from_numpy(output)


def cross_keep(partial, global_, window):
    """Write down who sees which image token."""
    tokens = range(partial * window)
    rows = [[i * window <= j < (i + 1) * window for j in tokens] for i in range(partial)]
    return rows + [[True for _ in tokens] for _ in range(global_)]


def self_keep(partial, global_, window):
    """Write down which query sees which; a window of 0 has no end."""
    total = partial + global_
    near = window // 2 if window else total
    return [
        [(i < partial) == (j < partial) and (i >= partial or abs(i - j) <= near) for j in range(total)]
        for i in range(total)
    ]


def assert_close(found, expected, tolerance="rewrite-float64"):
    """Compare with a named tolerance."""
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= TOLERANCES[tolerance].value, f"{error:.3g}"


@pytest.mark.parametrize("scale", [1.0, 0.35], ids=["unscaled", "scaled"])
@pytest.mark.parametrize(("num_heads", "dim"), [(1, 7), (3, 5), (4, 12)])
@pytest.mark.parametrize("window", range(1, 17))
def test_cross_attention_over_every_window_size(window, num_heads, dim, scale):
    """Partial queries read their own run of image tokens, global queries all of them."""
    partial, global_ = 5, 3
    query = random_tokens(2, partial + global_, num_heads * dim)
    key, value = (random_tokens(2, partial * window, num_heads * dim, seed=seed) for seed in (1, 2))
    found = partial_global_attention(
        query, key, value, num_heads=num_heads, num_partial=partial, num_global=global_, scale=scale
    )
    assert_close(
        found, masked_attention(query, key, value, cross_keep(partial, global_, window), num_heads, scale)
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("query_batch", ["one_query", "query_per_image"])
@pytest.mark.parametrize(
    ("partial", "global_", "tokens"),
    [(6, 0, 18), (6, 1, 18), (1, 0, 5), (1, 1, 5), (11, 2, 11), (0, 1, 13), (0, 4, 13)],
    ids=str,
)
def test_cross_attention_with_every_kind_of_query(partial, global_, tokens, query_batch, batch):
    """Either kind of query may be absent, and one query may serve a whole batch of images."""
    query = random_tokens(1 if query_batch == "one_query" else batch, partial + global_, 18)
    key, value = (random_tokens(batch, tokens, 18, seed=seed) for seed in (1, 2))
    keep = cross_keep(partial, global_, tokens // partial if partial else 0)
    keep = keep if partial else [[True] * tokens for _ in range(global_)]
    found = partial_global_attention(
        query, key, value, num_heads=3, num_partial=partial, num_global=global_, scale=6**-0.5
    )
    assert_close(found, masked_attention(query, key, value, keep, 3, 6**-0.5))


@pytest.mark.parametrize("scale", [1.0, 0.35], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("window", [0, 1, 3, 5, 11, 13, 99], ids=lambda window: f"window{window}")
@pytest.mark.parametrize(("partial", "global_"), [(7, 0), (7, 1), (7, 4), (1, 1), (0, 1), (0, 5)], ids=str)
def test_self_attention_with_every_window(partial, global_, window, scale):
    """Partial tokens see near partial tokens, global tokens all global tokens, neither the other kind."""
    query, key, value = (random_tokens(2, partial + global_, 15, seed=seed) for seed in (3, 4, 5))
    found = block_diagonal_attention(
        query,
        key,
        value,
        num_heads=3,
        num_partial=partial,
        num_global=global_,
        scale=scale,
        partial_window=window,
    )
    expected = masked_attention(query, key, value, self_keep(partial, global_, window), 3, scale)
    assert_close(found, expected)


def test_self_attention_sees_all_partial_tokens_unless_told_otherwise():
    """The window has no end by default, as in the released code."""
    tokens = random_tokens(1, 9, 8)
    sizes = {"num_heads": 2, "num_partial": 7, "num_global": 2, "scale": 0.5}
    found = block_diagonal_attention(tokens, tokens, tokens, **sizes)
    assert torch.equal(found, block_diagonal_attention(tokens, tokens, tokens, **sizes, partial_window=0))
    assert_close(found, masked_attention(tokens, tokens, tokens, self_keep(7, 2, 0), 2, 0.5))


def test_image_tokens_outside_a_window_have_no_influence():
    """Replacing every other token by NaN leaves a partial query's output as it was."""
    query = random_tokens(1, 4, 6)
    key, value = (random_tokens(1, 12, 6, seed=seed) for seed in (1, 2))
    sizes = {"num_heads": 2, "num_partial": 4, "num_global": 0, "scale": 1.0}
    before = partial_global_attention(query, key, value, **sizes)
    outside = torch.ones(12, dtype=torch.bool)
    outside[6:9] = False  # the window of query 2
    key[:, outside], value[:, outside] = math.nan, math.nan
    after = partial_global_attention(query, key, value, **sizes)
    assert torch.equal(after[:, 2], before[:, 2])
    assert after[:, [0, 1, 3]].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, 0.35], ids=["unscaled", "scaled"])
def test_half_precision_runs_softmax_in_float32(monkeypatch, dtype, scale):
    """Scores are widened before the softmax, its weights narrowed after it, and the output keeps the dtype."""
    seen = []
    softmax = torch.softmax

    def recording(scores, dim):
        seen.append(scores.dtype)
        return softmax(scores, dim=dim)

    monkeypatch.setattr(pargo_kernels.reference.torch, "softmax", recording)
    query = random_tokens(2, 6, 12, dtype=dtype)
    key, value = (random_tokens(2, 8, 12, seed=seed, dtype=dtype) for seed in (1, 2))
    sizes = {"num_heads": 3, "num_partial": 4, "num_global": 2, "scale": scale}
    cross = partial_global_attention(query, key, value, **sizes)
    diagonal = block_diagonal_attention(query, query, query, **sizes, partial_window=3)
    assert seen == [torch.float32] * 4
    assert cross.dtype == diagonal.dtype == dtype
    assert_close(cross, masked_attention(query, key, value, cross_keep(4, 2, 2), 3, scale), "attention-half")
    assert_close(
        diagonal, masked_attention(query, query, query, self_keep(4, 2, 3), 3, scale), "attention-half"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_full_precision_keeps_its_dtype_through_the_softmax(dtype):
    """Float32 stays float32, and float64 loses nothing."""
    query = random_tokens(1, 5, 4, dtype=dtype)
    key = random_tokens(1, 12, 4, seed=1, dtype=dtype)
    found = partial_global_attention(query, key, key, num_heads=1, num_partial=4, num_global=1, scale=1.0)
    assert found.dtype == dtype
    expected = masked_attention(query, key, key, cross_keep(4, 1, 3), 1, 1.0)
    assert_close(found, expected, "rewrite-float64" if dtype == torch.float64 else "function-float32")


@pytest.mark.parametrize("window", [0, 3])
def test_large_scores_give_finite_attention(window):
    """Scores of a billion turn the softmax into a choice, not into NaN."""
    query = random_tokens(2, 8, 12, dtype=torch.float32) * 3e4
    key = random_tokens(2, 12, 12, seed=1, dtype=torch.float32) * 3e4
    value = random_tokens(2, 12, 12, seed=2, dtype=torch.float32)
    sizes = {"num_heads": 3, "num_partial": 6, "num_global": 2, "scale": 1.0}
    cross = partial_global_attention(query, key, value, **sizes)
    diagonal = block_diagonal_attention(query, query, value[:, :8], **sizes, partial_window=window)
    assert_close(cross, masked_attention(query, key, value, cross_keep(6, 2, 2), 3, 1.0), "function-float32")
    assert_close(
        diagonal,
        masked_attention(query, query, value[:, :8], self_keep(6, 2, window), 3, 1.0),
        "function-float32",
    )


def test_inputs_are_left_as_they_are():
    """Nothing is written into query, key or value."""
    tensors = [random_tokens(2, 8, 6, seed=seed) for seed in (1, 2, 3)]
    copies = [tensor.clone() for tensor in tensors]
    sizes = {"num_heads": 2, "num_partial": 4, "num_global": 4, "scale": 0.5}
    partial_global_attention(*tensors, **sizes)
    block_diagonal_attention(*tensors, **sizes, partial_window=3)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
