"""The Triton kernel of self-attention equals the reference; without a GPU it runs in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from attention_kernel_cases import BAD_INPUTS, DEVICE, DTYPES, bad_inputs, check, poisoned_empty, tokens

from pargo_kernels import reference
from pargo_kernels.triton_block_diagonal import (
    Tiles,
    block_diagonal_attention,
    choose_tiles,
    explain_block_diagonal_attention,
    launch_arguments,
)

SMALL = Tiles(block_query=16, block_key=16, num_warps=4, num_stages=2)
FULL_SIZE = {"num_heads": 8, "num_partial": 288, "num_global": 16}


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Let unwritten elements of an output show."""
    monkeypatch.setattr(torch, "empty", poisoned_empty)


def attend_and_check(inputs, tiles=SMALL, tolerance=None, *, heads=2, scale=0.35, **sizes):
    """Run the kernel and compare."""
    sizes = {"num_heads": heads, "scale": scale, **sizes}
    found = block_diagonal_attention(*inputs, **sizes, tiles=tiles)
    check(found, reference.block_diagonal_attention, inputs, tolerance, **sizes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [5, 16, 24, 64])
def test_every_dtype_and_head_size(dim, dtype):
    """Head sizes need not be powers of two, tokens need not fill blocks."""
    inputs = [tokens(2, 22, 2 * dim, dtype=dtype) for _ in range(3)]
    attend_and_check(inputs, num_partial=19, num_global=3, scale=dim**-0.5)


@pytest.mark.parametrize(
    ("partial", "global_"),
    [(1, 0), (16, 0), (37, 0), (17, 1), (32, 16), (20, 33), (0, 1), (0, 35), (1, 1)],
    ids=str,
)
def test_every_mix_of_partial_and_global_tokens(partial, global_):
    """Either kind may be absent, be a single token, or take several blocks."""
    inputs = [tokens(1, partial + global_, 14) for _ in range(3)]
    attend_and_check(inputs, num_partial=partial, num_global=global_)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 17, 31, 33, 63, 97, 99, 101])
@pytest.mark.parametrize(
    "tiles", [SMALL, Tiles(32, 16, 4, 2), Tiles(16, 64, 4, 2)], ids=["16x16", "32x16", "16x64"]
)
def test_a_window_hides_far_partial_tokens_only(tiles, window):
    """Windows inside a block, across blocks and beyond all tokens; global tokens have none."""
    inputs = [tokens(1, 50 + 18, 8) for _ in range(3)]
    attend_and_check(inputs, tiles, num_partial=50, num_global=18, partial_window=window)


def test_tiles_are_chosen_for_full_size_and_for_tiny_inputs():
    """Blocks of 64 where there are so many tokens, and the result is right with the smallest ones too."""
    sizes = {"head_dim": 64, "dtype": torch.float16}
    assert choose_tiles(num_partial=288, num_global=16, **sizes).block_query == 64
    assert choose_tiles(num_partial=19, num_global=2, **sizes).block_query == 32
    assert choose_tiles(num_partial=3, num_global=2, **sizes).block_query == 16
    for batch in (1, 8, 16):
        inputs = [tokens(batch, 21, 6) for _ in range(3)]
        attend_and_check(inputs, None, num_partial=19, num_global=2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_of_a_merged_projection(dtype):
    """Inputs are views with a row stride of three widths, cut from a larger batch and longer rows of tokens."""
    merged = tokens(4, 25, 3 * 32, dtype=dtype)[1:3, 2:24]
    inputs = merged.chunk(3, dim=-1)
    assert not inputs[0].is_contiguous()
    attend_and_check(inputs, num_partial=19, num_global=3)


def test_one_query_serves_a_batch():
    """A query of batch 1 meets the keys of every image."""
    inputs = [tokens(1, 20, 12), tokens(3, 20, 12), tokens(3, 20, 12)]
    attend_and_check(inputs, num_partial=17, num_global=3)


@pytest.mark.parametrize("scale", [1.0, -0.7, 0.0])
def test_any_factor_on_the_scores(scale):
    """The factor may be absent, negative or zero."""
    attend_and_check([tokens(1, 20, 12) for _ in range(3)], num_partial=17, num_global=3, scale=scale)


def test_large_scores_do_not_overflow():
    """Scores of hundreds, the largest at the last keys, go through the softmax as differences to their maximum."""
    query, key, value = (tokens(1, 52, 32) for _ in range(3))
    key = key * torch.linspace(1, 40, 52, device=DEVICE)[:, None]
    attend_and_check(
        [query, key, value],
        num_partial=49,
        num_global=3,
        scale=3.0,
        tolerance="attention-kernel-large-scores",
    )


def test_neither_kind_reads_the_other():
    """Huge keys and NaN values of one kind leave the output of the other as it was."""
    sizes = {"num_heads": 2, "num_partial": 17, "num_global": 5, "scale": 0.5, "tiles": SMALL}
    query, key, value = (tokens(1, 22, 12) for _ in range(3))
    before = block_diagonal_attention(query, key, value, **sizes)
    for poisoned, other in ((slice(17), slice(17, None)), (slice(17, None), slice(17))):
        bad_key, bad_value = key.clone(), value.clone()
        bad_key[:, poisoned], bad_value[:, poisoned] = 1e4, torch.nan
        after = block_diagonal_attention(query, bad_key, bad_value, **sizes)
        assert torch.equal(after[:, other], before[:, other])
        assert after[:, poisoned].isnan().all()


def test_keys_outside_the_band_of_a_block_are_not_read():
    """They are skipped, not masked: even NaN among the values there has no influence."""
    sizes = {"num_heads": 1, "num_partial": 64, "num_global": 0, "scale": 0.5, "partial_window": 7}
    query, key, value = (tokens(1, 64, 16) for _ in range(3))
    before = block_diagonal_attention(query, key, value, **sizes, tiles=SMALL)
    outside = torch.ones(64, dtype=torch.bool)
    outside[16 - 3 : 32 + 3] = False  # what the second block of 16 queries sees
    key[:, outside], value[:, outside] = 1e4, torch.nan
    after = block_diagonal_attention(query, key, value, **sizes, tiles=SMALL)
    assert torch.equal(after[:, 16:32], before[:, 16:32])
    assert after[:, :16].isnan().any()


def test_an_empty_batch_gives_an_empty_output():
    """Nothing is launched for no images."""
    inputs = [tokens(0, 8, 12) for _ in range(3)]
    found = block_diagonal_attention(*inputs, num_heads=2, num_partial=6, num_global=2, scale=1.0)
    assert found.shape == (0, 8, 12)


@pytest.mark.parametrize(("change", "sizes", "reason"), BAD_INPUTS)
def test_inputs_that_the_kernel_does_not_take_are_refused_with_the_reason(change, sizes, reason):
    """The wrapper raises what the explanation says."""
    sizes = {"num_heads": 2, "num_partial": 6, "num_global": 2, "scale": 1.0, **sizes}
    inputs = bad_inputs(change, num_keys=8)
    with pytest.raises(ValueError, match=reason) as caught:
        block_diagonal_attention(*inputs, **sizes)
    assert str(caught.value).endswith(explain_block_diagonal_attention(*inputs, **sizes))


@pytest.mark.parametrize(
    ("num_keys", "window", "reason"),
    [(7, 0, "query has 8 tokens and key 7"), (8, -3, "partial_window is -3, expected")],
)
def test_self_attention_has_as_many_keys_as_queries_and_no_negative_window(num_keys, window, reason):
    """What only this kernel refuses."""
    sizes = {"num_heads": 2, "num_partial": 6, "num_global": 2, "scale": 1.0, "partial_window": window}
    with pytest.raises(ValueError, match=reason):
        block_diagonal_attention(*bad_inputs({}, num_keys), **sizes)


def test_the_launch_can_be_planned_without_data():
    """Tensors of the meta device are enough to know grid and constants at full size."""
    inputs = torch.zeros(1, 304, 1536, dtype=torch.float16, device="meta").chunk(3, dim=-1)
    output = torch.zeros(1, 304, 512, dtype=torch.float16, device="meta")
    grid, arguments, options = launch_arguments(*inputs, output, **FULL_SIZE, scale=0.125)
    assert grid == (8, 5 + 1)
    assert arguments[5] == 1536
    assert (options["BLOCK_QUERY"], options["REACH"], options["num_warps"]) == (64, -1, 4)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA GPU")
@pytest.mark.parametrize("window", [0, 31])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_size(dtype, batch, window):
    """The sizes of the official model, with the tiles that are chosen for them."""
    inputs = tokens(batch, 304, 1536, dtype=dtype).chunk(3, dim=-1)
    attend_and_check(
        inputs, None, heads=8, num_partial=288, num_global=16, scale=0.125, partial_window=window
    )
