"""Batch sizes, slots and result memory: what of the CUDA graphs can be tested without a GPU."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from pargo_export.runtime.cuda.graphs import SlotPool, StreamPool, as_backend_error, batch_sizes, padded_size
from pargo_export.runtime.cuda.host_memory import HostResults


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (12, (1, 2, 4, 8, 12)),
        (32, (1, 2, 4, 8, 16, 32)),
    ],
)
def test_captured_batch_sizes(largest, sizes):
    """Powers of two and the largest batch, each once, ascending."""
    assert batch_sizes(largest) == sizes


def test_batches_are_padded_to_the_next_size():
    """Every batch up to the largest has a graph, and the smallest that holds it is taken."""
    sizes = batch_sizes(12)
    assert [padded_size(sizes, batch) for batch in range(1, 13)] == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]


class FakeSlot:
    """Knows whether it was closed."""

    closed = False

    def close(self):
        """Remember it."""
        self.closed = True


def test_callers_never_share_a_slot():
    """More callers than slots wait for a free one, and each slot comes back, also after an error."""
    slots = [FakeSlot(), FakeSlot()]
    pool, in_use, most, lock = SlotPool(slots), set(), [], threading.Lock()

    def call(index):
        with pool.borrow() as slot:
            with lock:
                assert slot not in in_use
                in_use.add(slot)
                most.append(len(in_use))
            threading.Event().wait(0.01)
            with lock:
                in_use.remove(slot)
            if index % 3 == 0:
                raise RuntimeError("failed")

    with ThreadPoolExecutor(6) as executor:
        futures = [executor.submit(call, index) for index in range(18)]
    assert sum(future.exception() is not None for future in futures) == 6
    assert max(most) == 2
    pool.clear()
    assert pool._free.empty()
    assert all(slot.closed for slot in slots)


def test_streams_of_closed_slots_are_used_again():
    """The last one that came back is handed out first, by device."""
    pool = StreamPool()
    first, second, other = (SimpleNamespace(device=device) for device in ("cuda:0", "cuda:0", "cuda:1"))
    for stream in (first, second, other):
        pool.give_back(stream)
    assert pool.take("cuda:0") is second
    assert pool.take("cuda:1") is other
    assert pool.take("cuda:0") is first


def test_results_share_memory_with_what_the_gpu_writes():
    """No copy lies between them, and the array outlives the tensor."""
    tensor, array = HostResults(pin=False).empty((2, 3))
    tensor.fill_(7)
    del tensor
    gc.collect()
    assert (array.dtype, array.shape) == (np.float32, (2, 3))
    assert (array == 7).all()
    array[0] = 1  # it belongs to the caller


def test_page_locked_memory_is_bounded():
    """What callers keep counts, views too; what they drop is free again."""
    results = HostResults(limit_bytes=100, pin=False)
    first = results.empty((20,))[1]
    assert results.held_bytes == 80
    second = results.empty((20,))[1]
    assert results.held_bytes == 80, "the second one must be ordinary memory"
    view = first[3:5]
    del first, second
    gc.collect()
    assert results.held_bytes == 80, "a view keeps its memory"
    del view
    gc.collect()
    assert results.held_bytes == 0


def test_errors_of_cuda_are_one_line():
    """What was done, what CUDA says, what to do."""
    error = as_backend_error(RuntimeError("CUDA error: an illegal access\nCompile with ..."), "running")
    assert str(error) == (
        "CUDA failed while running: CUDA error: an illegal access; open the bundle again, or use another backend"
    )
    assert "KeyError" in str(as_backend_error(KeyError(), "loading"))
