"""Which batch sizes are prepared, and who may use which slot."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pargo_export.runtime.slots import SlotPool, batch_sizes, padded_size


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
