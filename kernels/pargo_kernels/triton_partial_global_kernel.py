"""The Triton kernel of ParGo's cross-attention: windows for partial queries, all keys for global queries.

Two kinds of programs share the launch. A global program walks over the keys, or over its share of them, with
an online softmax; a partial program reads the windows of consecutive partial queries once and needs no matrix
product. Global programs come first: they take longest.

Where the keys are split, each program leaves its sums in a workspace, and the one that comes last at the
counter of its queries combines them, always in the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pargo_kernels.triton_attend import attend_block, first_rows, load_rows, normalise, store_rows
from pargo_kernels.triton_dependent import release_dependents, wait_for_previous

__all__ = ["partial_global_kernel"]

UNROLLED_WINDOW = tl.constexpr(16)  # longer windows are a loop, for the sake of code size


@triton.jit
def _window_step(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    factor: tl.tensor,
    row_max: tl.tensor,
    row_sum: tl.tensor,
    accumulator: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Take one key of each row's window into its softmax; all `[rows, D]`."""
    score = tl.sum(query * key.to(tl.float32), axis=1) * factor
    new_max = tl.maximum(row_max, score)
    weight = tl.exp2(score - new_max)
    correction = tl.exp2(row_max - new_max)
    accumulator = accumulator * correction[:, None] + weight[:, None] * value.to(tl.float32)
    return new_max, row_sum * correction + weight, accumulator


@triton.jit
def _attend_windows(
    query_base: tl.tensor,
    key_base: tl.tensor,
    value_base: tl.tensor,
    output_base: tl.tensor,
    query_row_stride: tl.tensor,
    key_row_stride: tl.tensor,
    value_row_stride: tl.tensor,
    factor: tl.tensor,
    first_query: tl.tensor,
    NUM_PARTIAL: tl.constexpr,
    WINDOW: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_PARTIAL: tl.constexpr,
) -> None:
    """Consecutive partial queries of one head: row i reads keys `[i * WINDOW, (i + 1) * WINDOW)`."""
    all_rows: tl.constexpr = NUM_PARTIAL % BLOCK_PARTIAL == 0
    rows = first_query + tl.arange(0, BLOCK_PARTIAL)
    query = load_rows(query_base, rows, query_row_stride, NUM_PARTIAL, HEAD_DIM, BLOCK_DIM, all_rows)
    query = query.to(tl.float32)
    row_max, row_sum, accumulator = first_rows(BLOCK_PARTIAL, BLOCK_DIM)
    last = NUM_PARTIAL * WINDOW
    if WINDOW <= UNROLLED_WINDOW:  # all loads of a short window are on their way before the first product
        for step in tl.static_range(WINDOW):
            tokens = rows * WINDOW + step
            key = load_rows(key_base, tokens, key_row_stride, last, HEAD_DIM, BLOCK_DIM, all_rows)
            value = load_rows(value_base, tokens, value_row_stride, last, HEAD_DIM, BLOCK_DIM, all_rows)
            row_max, row_sum, accumulator = _window_step(
                query, key, value, factor, row_max, row_sum, accumulator
            )
    else:
        for step in range(WINDOW):
            tokens = rows * WINDOW + step
            key = load_rows(key_base, tokens, key_row_stride, last, HEAD_DIM, BLOCK_DIM, all_rows)
            value = load_rows(value_base, tokens, value_row_stride, last, HEAD_DIM, BLOCK_DIM, all_rows)
            row_max, row_sum, accumulator = _window_step(
                query, key, value, factor, row_max, row_sum, accumulator
            )
    result = normalise(accumulator, row_sum)
    store_rows(output_base, rows, NUM_PARTIAL, result, ROW_WIDTH, HEAD_DIM, BLOCK_DIM)


@triton.jit
def _combine_splits(
    slots: tl.tensor, NUM_SPLITS: tl.constexpr, BLOCK_GLOBAL: tl.constexpr, BLOCK_DIM: tl.constexpr
) -> tl.tensor:
    """Merge what the programs of one block of queries left at `slots`: `[BLOCK_GLOBAL, BLOCK_DIM]`.

    Reads past the first-level cache, which is not coherent between multiprocessors.
    """
    slot: tl.constexpr = BLOCK_GLOBAL * (BLOCK_DIM + 2)
    index = tl.arange(0, BLOCK_GLOBAL)
    tile = index[:, None] * BLOCK_DIM + tl.arange(0, BLOCK_DIM)[None, :]
    maxima = slots + BLOCK_GLOBAL * BLOCK_DIM + index
    row_max, row_sum, accumulator = first_rows(BLOCK_GLOBAL, BLOCK_DIM)
    for split in tl.static_range(NUM_SPLITS):
        row_max = tl.maximum(row_max, tl.load(maxima + split * slot, cache_modifier=".cg"))
    for split in tl.static_range(NUM_SPLITS):
        share = tl.exp2(tl.load(maxima + split * slot, cache_modifier=".cg") - row_max)
        row_sum += share * tl.load(maxima + split * slot + BLOCK_GLOBAL, cache_modifier=".cg")
        accumulator += share[:, None] * tl.load(slots + split * slot + tile, cache_modifier=".cg")
    return normalise(accumulator, row_sum)


@triton.jit
def partial_global_kernel(
    query_ptr: tl.tensor,
    key_ptr: tl.tensor,
    value_ptr: tl.tensor,
    output_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    counters_ptr: tl.tensor,
    query_batch_stride: tl.tensor,
    query_row_stride: tl.tensor,
    key_batch_stride: tl.tensor,
    key_row_stride: tl.tensor,
    value_batch_stride: tl.tensor,
    value_row_stride: tl.tensor,
    factor: tl.tensor,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    NUM_PARTIAL: tl.constexpr,
    NUM_GLOBAL: tl.constexpr,
    NUM_KEYS: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_PARTIAL: tl.constexpr,
    BLOCK_GLOBAL: tl.constexpr,
    BLOCK_KEY: tl.constexpr,
    WIDEN: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    """Grid: (batch * heads, blocks of global queries * splits + blocks of partial queries).

    `factor` is scale * log2(e), float32. `sums_ptr` and `counters_ptr` may be None with one split. The output
    is contiguous, `[B, P + G, H * D]`.
    """
    global_blocks: tl.constexpr = (NUM_GLOBAL + BLOCK_GLOBAL - 1) // BLOCK_GLOBAL
    global_programs: tl.constexpr = global_blocks * NUM_SPLITS
    row_width: tl.constexpr = NUM_HEADS * HEAD_DIM
    num_tokens: tl.constexpr = NUM_PARTIAL + NUM_GLOBAL
    image = (tl.program_id(0) // NUM_HEADS).to(tl.int64)
    channel = tl.program_id(0) % NUM_HEADS * HEAD_DIM
    program = tl.program_id(1)
    query_base = query_ptr + image * query_batch_stride + channel
    key_base = key_ptr + image * key_batch_stride + channel
    value_base = value_ptr + image * value_batch_stride + channel
    output_base = output_ptr + image * (num_tokens * row_width) + channel
    if DEPENDENT:
        wait_for_previous()
        release_dependents()

    if program >= global_programs:
        if NUM_PARTIAL > 0:
            _attend_windows(
                query_base,
                key_base,
                value_base,
                output_base,
                query_row_stride,
                key_row_stride,
                value_row_stride,
                factor,
                (program - global_programs) * BLOCK_PARTIAL,
                NUM_PARTIAL,
                NUM_KEYS // NUM_PARTIAL,
                row_width,
                HEAD_DIM,
                BLOCK_DIM,
                BLOCK_PARTIAL,
            )
    elif NUM_GLOBAL > 0:
        block = program // NUM_SPLITS
        split = program % NUM_SPLITS
        key_blocks: tl.constexpr = (NUM_KEYS + BLOCK_KEY - 1) // BLOCK_KEY
        share: tl.constexpr = (key_blocks + NUM_SPLITS - 1) // NUM_SPLITS * BLOCK_KEY
        all_keys: tl.constexpr = NUM_KEYS % BLOCK_KEY == 0
        rows = NUM_PARTIAL + block * BLOCK_GLOBAL + tl.arange(0, BLOCK_GLOBAL)
        query = load_rows(query_base, rows, query_row_stride, num_tokens, HEAD_DIM, BLOCK_DIM, False)
        row_max, row_sum, accumulator = first_rows(BLOCK_GLOBAL, BLOCK_DIM)
        for start in range(split * share, tl.minimum((split + 1) * share, NUM_KEYS), BLOCK_KEY):
            columns = start + tl.arange(0, BLOCK_KEY)
            key = load_rows(key_base, columns, key_row_stride, NUM_KEYS, HEAD_DIM, BLOCK_DIM, all_keys)
            value = load_rows(value_base, columns, value_row_stride, NUM_KEYS, HEAD_DIM, BLOCK_DIM, all_keys)
            visible = None if all_keys else (columns < NUM_KEYS)[None, :]
            row_max, row_sum, accumulator = attend_block(
                query, key, value, visible, factor, row_max, row_sum, accumulator, WIDEN
            )
        if NUM_SPLITS == 1:
            result = normalise(accumulator, row_sum)
            store_rows(output_base, rows, num_tokens, result, row_width, HEAD_DIM, BLOCK_DIM)
        else:
            slot: tl.constexpr = BLOCK_GLOBAL * (BLOCK_DIM + 2)
            meeting = tl.program_id(0).to(tl.int64) * global_blocks + block
            slots = sums_ptr + meeting * (NUM_SPLITS * slot)
            index = tl.arange(0, BLOCK_GLOBAL)
            tile = index[:, None] * BLOCK_DIM + tl.arange(0, BLOCK_DIM)[None, :]
            own = slots + split * slot
            tl.store(own + tile, accumulator)
            tl.store(own + BLOCK_GLOBAL * BLOCK_DIM + index, row_max)
            tl.store(own + BLOCK_GLOBAL * (BLOCK_DIM + 1) + index, row_sum)
            # One thread counts for the program: the barrier puts the stores of all its threads before the
            # release, and what they read after it behind the acquire.
            tl.debug_barrier()
            arrived = tl.atomic_add(counters_ptr + meeting, 1, sem="acq_rel", scope="gpu")
            tl.debug_barrier()
            if arrived == NUM_SPLITS - 1:
                result = _combine_splits(slots, NUM_SPLITS, BLOCK_GLOBAL, BLOCK_DIM)
                store_rows(output_base, rows, num_tokens, result, row_width, HEAD_DIM, BLOCK_DIM)
                tl.store(counters_ptr + meeting, 0)  # for the next launch
