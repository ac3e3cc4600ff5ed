"""The Triton kernel of cross-attention equals the reference; without a GPU it runs in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from attention_kernel_cases import BAD_INPUTS, DEVICE, DTYPES, bad_inputs, check, poisoned_empty, tokens

from pargo_kernels import reference
from pargo_kernels.partial_global_plan import (
    SplitWorkspace,
    Tiles,
    choose_num_splits,
    choose_tiles,
    make_workspace,
    workspace_sizes,
)
from pargo_kernels.triton_partial_global import (
    explain_partial_global_attention,
    launch_arguments,
    partial_global_attention,
)

SMALL = Tiles(block_partial=4, block_global=16, block_key=16, num_warps=4, num_stages=2)
FULL_SIZE = {"num_heads": 8, "num_partial": 288, "num_global": 16}


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Let unwritten elements of an output or a workspace show."""
    monkeypatch.setattr(torch, "empty", poisoned_empty)


def inputs_of(num_queries, num_keys, width, *, batch=1, query_batch=1, dtype=torch.float32):
    """Return query, key and value."""
    return [
        tokens(query_batch, num_queries, width, dtype=dtype),
        *(tokens(batch, num_keys, width, dtype=dtype) for _ in range(2)),
    ]


def attend_and_check(inputs, tiles=SMALL, tolerance=None, *, splits=1, heads=2, scale=0.35, **sizes):
    """Run the kernel and compare."""
    sizes = {"num_heads": heads, "scale": scale, **sizes}
    found = partial_global_attention(*inputs, **sizes, tiles=tiles, num_splits=splits)
    check(found, reference.partial_global_attention, inputs, tolerance, **sizes)


@pytest.mark.parametrize("window", [*range(1, 18), 40])
def test_every_window_size(window):
    """Partial queries read their own run of image tokens, in an unrolled or, from 17 on, in a rolled loop."""
    attend_and_check(inputs_of(5 + 3, 5 * window, 12), num_partial=5, num_global=3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [5, 16, 24, 64])
def test_every_dtype_and_head_size(dim, dtype):
    """Head sizes need not be powers of two, queries and keys need not fill blocks."""
    inputs = inputs_of(9 + 3, 27, 2 * dim, batch=2, query_batch=2, dtype=dtype)
    attend_and_check(inputs, num_partial=9, num_global=3, scale=dim**-0.5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("partial", "global_", "keys"),
    [(6, 0, 18), (8, 1, 16), (1, 0, 5), (1, 1, 33), (11, 2, 11), (0, 1, 13), (0, 19, 50), (3, 40, 48)],
    ids=str,
)
def test_every_mix_of_partial_and_global_queries(partial, global_, keys, batch):
    """Either kind may be absent, be a single query, or take several blocks; one query serves a batch."""
    inputs = inputs_of(partial + global_, keys, 14, batch=batch)
    attend_and_check(inputs, num_partial=partial, num_global=global_)


@pytest.mark.parametrize(
    (
        "splits",
        "dtype",
    ),  # shares are added in float32 whatever the dtype: each number of splits with one dtype
    [
        (1, torch.float32),
        (2, torch.float32),
        (4, torch.float32),
        *((3, each) for each in DTYPES),
        (9, torch.float16),
    ],
    ids=str,
)
def test_programs_that_share_the_keys_agree_with_one(splits, dtype):
    """Also where shares are uneven, some are empty (9 splits of 5 steps), and queries take two blocks."""
    inputs = inputs_of(4 + 18, 76, 16, batch=2, dtype=dtype)
    attend_and_check(inputs, splits=splits, num_partial=4, num_global=18)


@pytest.mark.parametrize("splits", [2, 3])
def test_a_workspace_serves_launch_after_launch(splits):
    """Every launch leaves the counters at 0 and reads nothing of the launch before."""
    sizes = {"num_heads": 2, "num_partial": 4, "num_global": 18, "scale": 0.35}
    needed = workspace_sizes(splits, 2 * 2, num_global=18, head_dim=8, tiles=SMALL)
    workspace = make_workspace(*needed, device=DEVICE)
    for _ in range(2):
        inputs = inputs_of(22, 76, 16, batch=2)
        options = {"tiles": SMALL, "num_splits": splits, "workspace": workspace}
        found = partial_global_attention(*inputs, **sizes, **options)
        check(found, reference.partial_global_attention, inputs, **sizes)
        assert torch.equal(found, partial_global_attention(*inputs, **sizes, **options))
        assert not workspace.counters.any()
    assert workspace.sums.isfinite().all()  # every program has written a place of its own


def test_only_the_program_that_completes_the_count_combines():
    """With counters that start too low nobody comes last: global rows stay unwritten, partial rows do not."""
    sizes = {"num_heads": 1, "num_partial": 4, "num_global": 2, "scale": 0.35, "tiles": SMALL}
    needed = workspace_sizes(2, 1, num_global=2, head_dim=8, tiles=SMALL)
    workspace = make_workspace(*needed, device=DEVICE)
    workspace.counters.fill_(-1)
    found = partial_global_attention(*inputs_of(6, 32, 8), **sizes, num_splits=2, workspace=workspace)
    assert found[:, 4:].isnan().all()
    assert not found[:, :4].isnan().any()
    assert workspace.counters.tolist() == [1]


def test_a_workspace_that_is_too_small_is_refused():
    """Sums or counters of fewer images would be overrun."""
    inputs = inputs_of(6, 32, 16, batch=2)
    sizes = {
        "num_heads": 2,
        "num_partial": 4,
        "num_global": 2,
        "scale": 0.35,
        "tiles": SMALL,
        "num_splits": 2,
    }
    sums, counters = workspace_sizes(2, 2 * 2, num_global=2, head_dim=8, tiles=SMALL)
    for small in ((sums - 1, counters + 1), (sums + 1, counters - 1)):
        workspace = make_workspace(*small, device=DEVICE)
        with pytest.raises(ValueError, match=r"the workspace holds .* needed are"):
            partial_global_attention(*inputs, **sizes, workspace=workspace)
    with pytest.raises(ValueError, match="num_splits is 0, expected at least 1"):
        partial_global_attention(*inputs, **{**sizes, "num_splits": 0})


def test_splits_are_chosen_by_size():
    """One image splits the keys into single steps, many images do not split them."""
    sizes = {"num_partial": 288, "num_global": 16, "num_keys": 576, "head_dim": 64, "dtype": torch.float16}
    splits = {}
    for batch in (1, 8, 32):
        tiles = choose_tiles(8 * batch, **sizes)
        splits[batch] = choose_num_splits(8 * batch, num_global=16, num_keys=576, tiles=tiles)
    assert splits == {1: 5, 8: 2, 32: 1}
    assert choose_num_splits(8, num_global=0, num_keys=576, tiles=tiles) == 1


def test_by_default_keys_are_split_where_a_workspace_is_given():
    """Without one there is a single launch and nothing to allocate; the result is the same."""
    inputs = inputs_of(3 + 2, 201, 6)
    sizes = {"num_heads": 2, "num_partial": 3, "num_global": 2, "scale": 0.35}
    output = torch.empty(1, 5, 6, device=DEVICE)
    workspace = make_workspace(10_000, 10, device=DEVICE)
    alone = launch_arguments(*inputs, output, **sizes)
    shared = launch_arguments(*inputs, output, **sizes, workspace=workspace)
    assert alone.options["NUM_SPLITS"] == 1
    assert alone.arguments[4:6] == (None, None)
    assert shared.options["NUM_SPLITS"] > 1
    for batch in (1, 2):
        inputs = inputs_of(3 + 2, 201, 6, batch=batch)
        for given in (None, workspace):
            found = partial_global_attention(*inputs, **sizes, workspace=given)
            check(found, reference.partial_global_attention, inputs, **sizes)


def test_tiles_chosen_for_many_images():
    """Longer blocks of partial queries compute the same."""
    inputs = inputs_of(40 + 1, 40, 6, batch=33)
    assert choose_tiles(
        66, num_partial=40, num_global=1, num_keys=40, head_dim=3, dtype=torch.float32
    ) != choose_tiles(2, num_partial=40, num_global=1, num_keys=40, head_dim=3, dtype=torch.float32)
    attend_and_check(inputs, None, num_partial=40, num_global=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_of_a_merged_projection(dtype):
    """Keys and values are views into the projection for all layers, cut from a larger batch."""
    merged = tokens(4, 30, 6 * 32, dtype=dtype)[1:3, 3:]
    key, value = merged.chunk(6, dim=-1)[2:4]
    query = tokens(2, 14, 64, dtype=dtype)[:, 1:-1, 16:48]
    assert not query.is_contiguous()
    assert not key.is_contiguous()
    attend_and_check([query, key, value], num_partial=9, num_global=3)


@pytest.mark.parametrize("scale", [1.0, -0.7, 0.0])
def test_any_factor_on_the_scores(scale):
    """The factor may be absent, negative or zero."""
    attend_and_check(inputs_of(12, 27, 12), num_partial=9, num_global=3, scale=scale)


@pytest.mark.parametrize("splits", [1, 3])
def test_large_scores_do_not_overflow(splits):
    """Scores of hundreds, the largest at the last keys, go through the softmax as differences to their maximum."""
    query, key, value = inputs_of(10 + 3, 50, 32)
    key = key * torch.linspace(1, 40, 50, device=DEVICE)[:, None]
    attend_and_check(
        [query, key, value],
        splits=splits,
        num_partial=10,
        num_global=3,
        scale=3.0,
        tolerance="attention-kernel-large-scores",
    )


def test_image_tokens_outside_a_window_have_no_influence():
    """Huge keys and NaN values of all other tokens leave the output of a partial query as it was."""
    query, key, value = inputs_of(9, 27, 12)
    sizes = {"num_heads": 2, "num_partial": 9, "num_global": 0, "scale": 0.5, "tiles": SMALL}
    before = partial_global_attention(query, key, value, **sizes)
    outside = torch.ones(27, dtype=torch.bool)
    outside[15:18] = False  # the window of query 5
    key[:, outside], value[:, outside] = 1e4, torch.nan
    after = partial_global_attention(query, key, value, **sizes)
    assert torch.equal(after[:, 5], before[:, 5])
    assert after[:, [*range(5), *range(6, 9)]].isnan().all()


def test_an_empty_batch_gives_an_empty_output():
    """Nothing is launched for no images."""
    inputs = inputs_of(8, 12, 12, batch=0)
    found = partial_global_attention(*inputs, num_heads=2, num_partial=6, num_global=2, scale=1.0)
    assert found.shape == (0, 8, 12)


@pytest.mark.parametrize(("change", "sizes", "reason"), BAD_INPUTS)
def test_inputs_that_the_kernel_does_not_take_are_refused_with_the_reason(change, sizes, reason):
    """The wrapper raises what the explanation says."""
    sizes = {"num_heads": 2, "num_partial": 6, "num_global": 2, "scale": 1.0, **sizes}
    inputs = bad_inputs(change, num_keys=12)
    with pytest.raises(ValueError, match=reason) as caught:
        partial_global_attention(*inputs, **sizes)
    assert str(caught.value).endswith(explain_partial_global_attention(*inputs, **sizes))


@pytest.mark.parametrize(
    ("num_keys", "reason"),
    [(13, "13 keys do not divide into num_partial=6 windows"), (0, "key has no tokens")],
)
def test_keys_must_divide_into_windows(num_keys, reason):
    """What only this kernel refuses."""
    sizes = {"num_heads": 2, "num_partial": 6, "num_global": 2, "scale": 1.0}
    with pytest.raises(ValueError, match=reason):
        partial_global_attention(*bad_inputs({}, num_keys), **sizes)


def test_the_launch_can_be_planned_without_data():
    """Tensors of the meta device are enough to know grid and constants at full size."""
    query = torch.zeros(1, 304, 512, dtype=torch.float16, device="meta")
    key, value = torch.zeros(2, 576, 4096, dtype=torch.float16, device="meta").chunk(8, dim=-1)[2:4]
    output = torch.zeros(2, 304, 512, dtype=torch.float16, device="meta")
    grid, arguments, options = launch_arguments(
        query, key, value, output, **FULL_SIZE, scale=0.125, num_splits=3
    )
    assert grid == (16, 1 * 3 + 18)
    assert arguments[5].shape == (16,)
    assert arguments[6:10] == (0, 512, 576 * 4096, 4096)
    assert (options["NUM_SPLITS"], options["BLOCK_PARTIAL"], options["num_warps"]) == (3, 16, 4)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA GPU")
@pytest.mark.parametrize("splits", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_size(dtype, batch, splits):
    """The sizes of the official model, with the tiles that are chosen for them."""
    key, value = tokens(batch, 576, 4096, dtype=dtype).chunk(8, dim=-1)[2:4]
    inputs = [tokens(1, 304, 512, dtype=dtype), key, value]
    attend_and_check(inputs, None, splits=splits, heads=8, num_partial=288, num_global=16, scale=0.125)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA GPU")
@pytest.mark.parametrize("splits", [2, 8])
def test_a_cuda_graph_replays_split_launches(splits):
    """A thousand replays of two launches that share a workspace give the same bits every time."""
    sizes = {**FULL_SIZE, "scale": 0.125}
    inputs = inputs_of(304, 576, 512, dtype=torch.float16)
    tiles = choose_tiles(8, num_partial=288, num_global=16, num_keys=576, head_dim=64, dtype=torch.float16)
    needed = workspace_sizes(splits, 8, num_global=16, head_dim=64, tiles=tiles)
    workspace = make_workspace(*needed, device=DEVICE)
    options = {"tiles": tiles, "num_splits": splits, "workspace": workspace}
    expected = partial_global_attention(*inputs, **sizes, **options)
    check(expected, reference.partial_global_attention, inputs, **sizes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = [partial_global_attention(*inputs, **sizes, **options) for _ in range(2)]
    for _ in range(1000):
        for output in found:
            output.fill_(torch.nan)
        graph.replay()
        assert all(torch.equal(output, expected) for output in found)


def test_a_workspace_is_plain_tensors():
    """Whoever owns the memory, as an engine's plugin does, can make one of its own."""
    sums, counters = workspace_sizes(2, 2, num_global=3, head_dim=6, tiles=SMALL)
    workspace = SplitWorkspace(
        sums=torch.full((sums,), torch.nan, device=DEVICE),
        counters=torch.zeros(counters, dtype=torch.int32, device=DEVICE),
    )
    inputs = inputs_of(4 + 3, 40, 12)
    sizes = {"num_heads": 2, "num_partial": 4, "num_global": 3, "scale": 0.35}
    found = partial_global_attention(*inputs, **sizes, tiles=SMALL, num_splits=2, workspace=workspace)
    check(found, reference.partial_global_attention, inputs, **sizes)
