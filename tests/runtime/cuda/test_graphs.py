"""Streams and result memory: what of the CUDA graphs can be tested without a GPU."""

from __future__ import annotations

import contextlib
import gc
from types import SimpleNamespace

import numpy as np
import torch

from pargo_export.runtime.cuda.graphs import Slot, StreamPool, as_backend_error
from pargo_export.runtime.cuda.host_memory import HostResults
from pargo_export.runtime.runner import StageTimes


def test_streams_of_closed_slots_are_used_again():
    """The last one that came back is handed out first, by device."""
    pool = StreamPool()
    first, second, other = (SimpleNamespace(device=device) for device in ("cuda:0", "cuda:0", "cuda:1"))
    for stream in (first, second, other):
        pool.give_back(stream)
    assert pool.take("cuda:0") is second
    assert pool.take("cuda:1") is other
    assert pool.take("cuda:0") is first


class Work:
    """Stands for a stream, its static buffers and its graph: who writes where takes milliseconds of its own.

    Attributes:
        ms: The time of the GPU so far.
        recorded: Events that were recorded.
    """

    def __init__(self, monkeypatch):
        self.ms, self.recorded, work = 0.0, 0, self

        class Event:
            def __init__(self, *, enable_timing):
                assert enable_timing

            def record(self, stream):
                assert stream is work.slot.stream
                work.recorded, self.at, self.is_over = work.recorded + 1, work.ms, False
                work.pending.append(self)

            def elapsed_time(self, later):
                assert self.is_over
                assert later.is_over
                return later.at - self.at

        class Buffer(torch.Tensor):
            def copy_(self, source, *, non_blocking):
                assert non_blocking
                work.ms += self.costs
                return super().copy_(source)

            def __getitem__(self, rows):
                view = super().__getitem__(rows)
                view.costs = self.costs
                return view

        def buffer(shape, costs):
            tensor = torch.zeros(shape).as_subclass(Buffer)
            tensor.costs = costs
            return tensor

        def replay():
            work.ms += 7
            work.slot._output[:] = work.slot._inputs[torch.float32].sum(1, keepdim=True)

        def synchronize():
            for event in work.pending:
                event.is_over = True

        self.pending = []
        self.slot = slot = object.__new__(Slot)
        slot.stream = SimpleNamespace(synchronize=synchronize)
        slot._sizes = (1, 4)
        slot._inputs = {torch.float32: buffer((4, 2), 5)}
        slot._staging = {torch.float32: torch.zeros(4, 2)}
        slot._output = torch.zeros(4, 1)
        slot._graphs = {(torch.float32, 4): SimpleNamespace(replay=replay)}
        self.results = SimpleNamespace(empty=lambda shape: (buffer(shape, 11),) * 2)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)


def test_stages_are_told_by_events(monkeypatch):
    """The same result as a run; each copy and the graph between them by itself. A run records nothing."""
    work = Work(monkeypatch)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    tokens, times = work.slot.run_stages(values, work.results)
    assert tokens.tolist() == [[1], [5], [9]]
    assert times == StageTimes(host_to_device_ms=5, compute_ms=7, device_to_host_ms=11)
    work.recorded = 0
    assert work.slot.run_host(values, work.results).tolist() == [[1], [5], [9]]
    assert work.recorded == 0


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
