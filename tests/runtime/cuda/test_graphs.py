"""Streams and result memory: what of the CUDA graphs can be tested without a GPU."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np

from pargo_export.runtime.cuda.graphs import StreamPool, as_backend_error
from pargo_export.runtime.cuda.host_memory import HostResults


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
