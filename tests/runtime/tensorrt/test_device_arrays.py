"""Arrays on the GPU: what is taken, where it is, and that the caller's stream and ours are in order.

The library is a stand-in with DLPack's methods over memory of the host; PyTorch itself runs the hand-over on the CPU.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from pargo_export.errors import BackendError
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends.tensorrt import TENSORRT
from pargo_export.runtime.selection import Candidate
from pargo_export.runtime.tensorrt.device_arrays import is_taken, let_caller_wait
from pargo_export.signature import TensorSpec

CALLER = 0x77  # the stream that the caller works on
PIXELS = TensorSpec(name="pixels", dtype="float32", shape=("batch", 3, 28, 28))
RANDOM = np.random.default_rng(11)


class Array:
    """An array of a library called `cupy`, on the fake GPU."""

    def __init__(self, driver, values, *, device=(2, 0), strides=None):
        self.driver, self.values, self.device_number, self.strides = driver, values, device, strides

    @property
    def dtype(self):
        """Type of the values."""
        return self.values.dtype

    @property
    def shape(self):
        """Sizes of the axes."""
        return self.values.shape

    @property
    def ndim(self):
        """Number of axes."""
        return self.values.ndim

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return Array(self.driver, self.values[index], device=self.device_number)

    def __array_namespace__(self):
        return sys.modules["cupy"]

    def __dlpack_device__(self):
        return self.device_number

    @property
    def __cuda_array_interface__(self):
        return {"data": (self.values.ctypes.data, False), "strides": self.strides}

    def __dlpack__(self, *, stream=None, **_):
        """Let the consumer's stream wait for the caller's, as the protocol wants it."""
        if stream not in {CALLER, -1}:
            mark = self.driver.streams[CALLER].submitted
            self.driver.push(stream, lambda: self.driver.streams[CALLER].run(mark))
        return "a capsule"


Array.__module__ = "cupy"


@pytest.fixture
def library(monkeypatch):
    """The stand-in of CuPy, which allocates full of garbage and works on the stream `CALLER`."""
    module = ModuleType("cupy")
    module.made = []

    def empty(shape, dtype):
        values = np.full(shape, np.nan, dtype)
        module.driver.adopt(values)
        module.made.append(Array(module.driver, values))
        return module.made[-1]

    def from_dlpack(array):
        assert array.__dlpack_device__() == (2, 0)
        assert array.__dlpack__(stream=CALLER, max_version=(1, 0)) == "a capsule"
        return array

    module.empty, module.from_dlpack = empty, from_dlpack
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def open_runtime(open_engine, library):
    """Return a function that opens a runtime on the fakes: runtime, driver and a function that makes arrays."""

    def open_runtime(**options):
        runner, driver, _ = open_engine(**options)
        library.driver = driver
        bundle = open_engine.bundle
        (engine,) = bundle.manifest.engines.values()
        choice = Candidate(bundle.manifest.variants[engine.variant], TENSORRT, engine)

        def make(values):
            """Return an array that the caller's stream has not filled yet."""
            memory = np.full_like(values, np.nan)
            driver.adopt(memory)
            driver.push(CALLER, lambda: np.copyto(memory, values))
            return Array(driver, memory)

        return Runtime(bundle, choice, runner), driver, make

    return open_runtime


def expected(values):
    """Return what the stand-in of an engine computes."""
    from runtime.tensorrt.fake_tensorrt import expected_tokens

    return expected_tokens(values, (1, 16))


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("batch", [1, 3, 10])
def test_array_never_leaves_the_gpu(open_runtime, batch, integrated, streams):
    """Read after the caller's stream has written it; the result is there for what that stream does next."""
    runtime, driver, make = open_runtime(integrated=integrated, streams=streams)
    values = RANDOM.standard_normal((batch, 3, 28, 28), np.float32)
    pinned = [array.ctypes.data for array in (runtime._runner._slots._free.queue[0]._input.host,)]
    result = runtime.encode(make(values))
    assert not driver.streams[CALLER].done, "nobody waited for the GPU"
    seen = np.empty_like(result.values)
    driver.push(CALLER, lambda: np.copyto(seen, result.values))  # the caller goes on without waiting
    driver.streams[CALLER].run()
    assert np.allclose(seen, expected(values))
    if not integrated:
        copies = [arguments for name, arguments in driver.calls if name == "cuMemcpyAsync"]
        assert sum(int(source) in pinned for _, source, *_ in copies) == 1, "only when it was opened"


def test_one_image_is_a_batch_of_one(open_runtime):
    """As on every backend."""
    runtime, driver, make = open_runtime()
    values = RANDOM.standard_normal((3, 28, 28), np.float32)
    result = runtime.encode(make(values))
    driver.finish()
    assert np.allclose(result.values, expected(values[None]))


def test_host_array_waits_for_what_the_gpu_still_reads(open_runtime):
    """On an integrated GPU the host writes into memory that an earlier call may still be read from."""
    runtime, driver, make = open_runtime(integrated=True)
    first, second = (RANDOM.standard_normal((2, 3, 28, 28), np.float32) for _ in range(2))
    result = runtime.encode(make(first))
    tokens = runtime.encode(second)
    driver.finish()
    assert np.allclose(result.values, expected(first))
    assert np.allclose(tokens, expected(second))


def test_closing_waits_for_what_is_queued(open_runtime):
    """The call returned before the GPU was done: graphs and contexts are freed after that."""
    runtime, driver, make = open_runtime()
    result = runtime.encode(make(np.ones((1, 3, 28, 28), np.float32)))
    driver.calls.clear()
    runtime.close()
    names = driver.names()
    assert names.index("cuStreamSynchronize") < names.index("cuGraphExecDestroy") < names.index("cuMemFree")
    assert np.allclose(result.values, expected(np.ones((1, 3, 28, 28), np.float32)))


def test_arrays_of_another_kind_come_by_the_host(open_runtime, library):
    """Another dtype, another GPU or gaps between the values: the library copies, the result is the same."""
    runtime, driver, _ = open_runtime()
    values = RANDOM.standard_normal((2, 3, 28, 28), np.float32)
    library.asarray = lambda result: ("back on the GPU", result)
    for array in (
        Array(driver, values.astype(np.float16)),
        Array(driver, values, device=(2, 1)),
        Array(driver, values, strides=(1, 2, 3, 4)),
    ):
        array.get = lambda array=array: array.values
        where, tokens = runtime.encode(array)
        assert where == "back on the GPU"
        assert np.allclose(tokens, expected(values), atol=1e-3)
    assert library.made == []


def test_what_is_taken():
    """PyTorch and CuPy alone: others may not let their memory be written."""
    other = type("Array", (Array,), {"__module__": "jax"})
    assert not is_taken(other(None, np.zeros((1, 3, 28, 28), np.float32)), PIXELS, 0)
    assert not is_taken(torch.zeros(1, 3, 28, 28), PIXELS, 0), "on the CPU"


def test_library_that_refuses_is_named(open_runtime, library):
    """What it says, and what to do."""
    runtime, _, make = open_runtime()
    array = make(np.zeros((1, 3, 28, 28), np.float32))

    def refuse(*_, **__):
        raise BufferError("another GPU is current")

    array.__class__ = type("Refusing", (Array,), {"__module__": "cupy", "__dlpack__": refuse})
    array.__class__.__getitem__ = lambda self, _: self
    with pytest.raises(
        BackendError, match=r"cupy does not hand over its array .*another GPU is current.*GPU 0"
    ):
        runtime.encode(array)
    library.empty = lambda *_, **__: (_ for _ in ()).throw(MemoryError("no memory"))
    with pytest.raises(
        BackendError, match=r"cupy cannot make the result, float32\[1, 1, 16\]: no memory; hand fewer"
    ):
        runtime.encode(array)


@pytest.mark.parametrize(
    ("given", "waits"), [(CALLER, [CALLER]), (None, [1]), (1, [1]), (2, [2]), (0, [1]), (-1, [])]
)
def test_streams_of_the_protocol(given, waits, monkeypatch):
    """`None` is the legacy default stream, -1 asks for no order, anything else is a handle."""
    waited = []
    module = ModuleType("cupy")
    module.from_dlpack = lambda array: array.__dlpack__(stream=given)
    monkeypatch.setitem(sys.modules, "cupy", module)
    driver = SimpleNamespace(streams={CALLER: SimpleNamespace(submitted=0)}, push=lambda *_: None)
    array = Array(driver, np.zeros(1, np.float32))
    assert let_caller_wait(array, waited.append) is array
    assert waited == waits


def test_pytorch_takes_the_hand_over():
    """The real `torch.from_dlpack`, which on the CPU passes no stream."""
    waited = []
    tensor = torch.arange(3.0)
    assert let_caller_wait(tensor, waited.append) is tensor
    assert waited == [1]
