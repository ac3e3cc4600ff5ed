# ruff: noqa: D102, N802 - one method for each function of the driver, with its name
"""NVIDIA's CUDA bindings over memory of the host, to drive our own code where there is no GPU.

It proves nothing about CUDA. Names, and numbers of arguments, are those of the real bindings. Streams are lazy: what is
queued happens when somebody waits for it, so that a missing wait shows. New memory of the GPU is full of NaN.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import deque
from types import ModuleType

import numpy as np

_NEEDS_NO_CONTEXT = ("cuInit", "cuDevice", "cuGetError", "cuCtxPush")
MARK_MS = 0.25  # what two events in a row are apart, nothing between them
_GARBAGE = 0xFF  # four of them are a NaN


class Stream:
    """What is queued, and how much of it has happened."""

    def __init__(self):
        self.queue, self.captured = deque(), None
        self.submitted = self.done = 0
        self.durations = []  # of all that was ever queued

    def push(self, operation, duration=0.5):
        """Queue an operation, or capture it."""
        if self.captured is not None:
            self.captured.append((operation, duration))
            return
        self.queue.append(operation)
        self.durations.append(duration)
        self.submitted += 1

    def run(self, until=None):
        """Do what is queued, up to a number of operations."""
        while self.queue and (until is None or self.done < until):
            self.done += 1
            self.queue.popleft()()


class FakeDriver:
    """Stands for the module `cuda.bindings.driver`.

    Attributes:
        calls: Names and arguments of all calls.
        live: What was made and not freed, by handle or address: the name of the function that made it.
        failures: What comes next of a function, instead of what it should do: names of statuses, `None` for success.
        fail_at: The number of the call that fails for want of memory; `None`: none.
        broken: Name of the status that every call gives from now on; empty: they work.
    """

    def __init__(self, real: ModuleType, *, integrated: bool = False):
        self._real, self._integrated = real, integrated
        self.calls, self.live, self.failures = [], {}, {}
        self.fail_at, self.broken = None, ""
        self.lock = threading.RLock()
        self._numbers = itertools.count(0x1000, 0x100)
        self._memories, self.streams, self._events, self._graphs = {}, {}, {}, {}
        self._timing_events = set()
        self._local = threading.local()

    def __getattr__(self, name):
        """Return a constant of the real bindings, or what stands for one of their functions."""
        real = getattr(self._real, name)
        if not name.startswith("cu"):
            return real
        implementation = object.__getattribute__(self, f"do_{name}")
        signature = real.__doc__.splitlines()[0].partition("(")[2].rstrip(")")
        expected = len(signature.split(",")) if signature else 0

        def call(*arguments):
            assert len(arguments) == expected, f"{name}({signature}) was called with {arguments}"
            with self.lock:
                return self._call(name, implementation, arguments)

        return call

    def _call(self, name, implementation, arguments):
        statuses = self._real.CUresult
        if name.startswith("cuGetError"):
            return statuses.CUDA_SUCCESS, implementation(*arguments)
        if not name.startswith(_NEEDS_NO_CONTEXT):
            assert self.contexts, f"{name} without a current context"
        self.calls.append((name, arguments))
        failure = self.broken or next(iter(self.failures.get(name, ())), None)
        if self.failures.get(name):
            self.failures[name].pop(0)
        if self.fail_at == len(self.calls):
            failure = "CUDA_ERROR_OUT_OF_MEMORY"
        if failure:
            if name == "cuStreamEndCapture":
                self._stream(arguments[0]).captured = None
            return getattr(statuses, failure), None
        values = implementation(*arguments)
        return (statuses.CUDA_SUCCESS, *(values if isinstance(values, tuple) else (values,)))

    @property
    def contexts(self):
        """The contexts that are current in this thread, one in another."""
        if not hasattr(self._local, "contexts"):
            self._local.contexts = []
        return self._local.contexts

    def names(self, of=""):
        """Names of the calls so far that begin in a certain way."""
        return [name for name, _ in self.calls if name.startswith(of)]

    def adopt(self, array):
        """Let an array be memory of the GPU, as if another library had allocated it."""
        self._memories[array.ctypes.data] = array.reshape(-1).view(np.uint8)

    def array(self, address, num_bytes):
        """Return the bytes at an address, which must lie in allocated memory."""
        for base, memory in self._memories.items():
            if base <= address and address + num_bytes <= base + memory.nbytes:
                return memory[address - base : address - base + num_bytes]
        raise AssertionError(f"{num_bytes} bytes at {address:#x} are not allocated")

    def _make(self, kind, name):
        handle = next(self._numbers)
        self.live[handle] = name
        return getattr(self._real, kind)(handle)

    def _stream(self, handle):
        return self.streams.setdefault(int(handle), Stream())

    def push(self, stream, operation, duration=0.5):
        """Queue an operation on a stream, that takes so many milliseconds by its events."""
        self._stream(stream).push(operation, duration)

    def is_capturing(self, stream):
        """Whether a stream is captured."""
        return self._stream(stream).captured is not None

    def finish(self):
        """Do all that is queued anywhere."""
        for stream in list(self.streams.values()):
            stream.run()

    def do_cuInit(self, flags):
        assert flags == 0

    def do_cuDeviceGet(self, ordinal):
        return self._real.CUdevice(ordinal)

    def do_cuDeviceGetName(self, length, device):
        return f"Fake GPU {int(device)}".encode().ljust(length, b"\0")

    def do_cuDeviceGetAttribute(self, attribute, device):
        assert attribute == self._real.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        assert int(device) == 0
        return int(self._integrated)

    def do_cuDevicePrimaryCtxRetain(self, device):
        self.live["context"] = "cuDevicePrimaryCtxRetain"
        return self._real.CUcontext(int(device) + 1)

    def do_cuDevicePrimaryCtxRelease(self, _device):
        del self.live["context"]

    def do_cuCtxPushCurrent(self, context):
        assert self.live.get("context"), "the context was given back"
        self.contexts.append(context)

    def do_cuCtxPopCurrent(self):
        return self.contexts.pop()

    def do_cuMemGetInfo(self):
        return 3 * 2**20, 8 * 2**30

    def _allocate(self, num_bytes, name):
        assert num_bytes > 0
        memory = np.full(num_bytes, _GARBAGE, np.uint8)
        self._memories[memory.ctypes.data] = memory
        self.live[memory.ctypes.data] = name
        return memory.ctypes.data

    def _free(self, address):
        self.finish()
        del self._memories[int(address)], self.live[int(address)]

    def do_cuMemAlloc(self, num_bytes):
        return self._real.CUdeviceptr(self._allocate(num_bytes, "cuMemAlloc"))

    def do_cuMemFree(self, address):
        self._free(address)

    def do_cuMemHostAlloc(self, num_bytes, flags):
        assert flags == self._real.CU_MEMHOSTALLOC_DEVICEMAP
        return self._allocate(num_bytes, "cuMemHostAlloc")

    def do_cuMemFreeHost(self, address):
        self._free(address)

    def do_cuMemHostGetDevicePointer(self, address, flags):
        assert flags == 0
        return self._real.CUdeviceptr(address)

    def do_cuMemcpyAsync(self, target, source, num_bytes, stream):
        arrays = self.array(int(target), num_bytes), self.array(int(source), num_bytes)
        self.push(stream, lambda: np.copyto(*arrays), float(num_bytes))

    def do_cuStreamCreate(self, flags):
        assert flags == self._real.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        return self._make("CUstream", "cuStreamCreate")

    def do_cuStreamDestroy(self, stream):
        self._stream(stream).run()
        del self.live[int(stream)], self.streams[int(stream)]

    def do_cuStreamSynchronize(self, stream):
        assert not self.is_capturing(stream)
        self._stream(stream).run()

    def do_cuEventCreate(self, flags):
        kinds = self._real.CUevent_flags
        assert flags in {kinds.CU_EVENT_DISABLE_TIMING.value, kinds.CU_EVENT_DEFAULT.value}
        event = self._make("CUevent", "cuEventCreate")
        if flags == kinds.CU_EVENT_DEFAULT.value:
            self._timing_events.add(int(event))
        return event

    def do_cuEventDestroy(self, event):
        del self.live[int(event)]

    def do_cuEventRecord(self, event, stream):
        source = self._stream(stream)
        self._events[int(event)] = source, source.submitted

    def do_cuEventElapsedTime(self, first, second):
        for event in (first, second):
            source, position = self._events[int(event)]
            assert int(event) in self._timing_events, "an event without timing"
            assert source.done >= position, "the event does not lie behind"
        begin, end = (self._events[int(event)][1] for event in (first, second))
        return sum(source.durations[begin:end]) + MARK_MS

    def do_cuStreamWaitEvent(self, stream, event, flags):
        assert flags == 0
        source, until = self._events[int(event)]
        self.push(stream, lambda: source.run(until))

    def do_cuStreamBeginCapture(self, stream, mode):
        assert mode == self._real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        assert not self._stream(stream).queue, "something runs on the stream"
        self._stream(stream).captured = []

    def do_cuStreamIsCapturing(self, stream):
        return self._real.CUstreamCaptureStatus(int(self.is_capturing(stream)))

    def do_cuStreamEndCapture(self, stream):
        graph = self._make("CUgraph", "cuStreamEndCapture")
        self._graphs[int(graph)], self._stream(stream).captured = self._stream(stream).captured, None
        return graph

    def do_cuGraphInstantiate(self, graph, flags):
        assert flags == 0
        executable = self._make("CUgraphExec", "cuGraphInstantiate")
        self._graphs[int(executable)] = list(self._graphs[int(graph)])
        return executable

    def do_cuGraphLaunch(self, executable, stream):
        assert int(executable) in self.live
        for operation, duration in self._graphs[int(executable)]:
            self.push(stream, operation, duration)

    def do_cuGraphDestroy(self, graph):
        del self.live[int(graph)]

    def do_cuGraphExecDestroy(self, executable):
        del self.live[int(executable)]

    def do_cuGetErrorName(self, status):
        return status.name.encode()

    def do_cuGetErrorString(self, status):
        return f"text of {int(status)}".encode()


def floats(driver, address, shape):
    """Return memory of the fake GPU as float32."""
    num_bytes = int(np.prod(shape)) * ctypes.sizeof(ctypes.c_float)
    return driver.array(address, num_bytes).view(np.float32).reshape(shape)
