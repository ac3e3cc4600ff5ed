"""TensorRT's runtime over the fake CUDA driver, to drive our own code where no engine can be loaded.

It proves nothing about TensorRT. Every attribute, and every number of arguments, is checked against the classes of the
installed TensorRT for RTX; what an engine "computes" is `expected_tokens`.
"""

from __future__ import annotations

import re
import weakref
from types import ModuleType, SimpleNamespace

import numpy as np
import tensorrt_rtx as real
from runtime.tensorrt.fake_cuda import FakeDriver, floats

from pargo_export.trt import Log, TensorRT

RTX_ONLY = ("CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy")
SCRATCH_BYTES = 1000
KERNELS = b"kernels "


def expected_tokens(pixels, shape):
    """Return what the fake engine computes of each image: its mean, plus the index of the value."""
    means = pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32)
    return means.reshape(-1, *[1] * len(shape)) + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


class Checked:
    """An object that has only what a real class has."""

    def __init__(self, kind, implementation):
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_implementation", implementation)

    def __getattr__(self, name):
        """Return an attribute that the real class has, too."""
        described = getattr(self._kind, name)
        value = getattr(self._implementation, name)
        if isinstance(described, property):
            return value

        def call(*arguments):
            counts = argument_counts(described.__doc__, name)
            assert any(low <= len(arguments) <= high for low, high in counts), (name, arguments, counts)
            return value(*arguments)

        return call

    def __setattr__(self, name, value):
        described = getattr(self._kind, name)
        assert isinstance(described, property), name
        assert described.fset is not None, name
        setattr(self._implementation, name, value)


def argument_counts(text, name):
    """Read from the docstring of a binding how many arguments its overloads take, at least and at most."""
    counts = []
    for found in re.finditer(rf"{name}\(self: [\w.]+(?:, (?P<rest>.*))?\) -> ", text):
        arguments = re.sub(r"\[[^\]]*\]|<[^>]*>", "", found["rest"] or "").split(", ")
        arguments = [item for item in arguments if item]
        counts.append((len([item for item in arguments if " = " not in item]), len(arguments)))
    assert counts, f"{name} has no signature in its documentation"
    return counts


class FakeTensorRT:
    """What stands for a TensorRT, and what happened to it.

    Attributes:
        loaded: What the code under test uses.
        settings: What was set on runtimes and runtime configs.
        contexts: Execution contexts that live.
        refused: Names of methods that fail, with what they return.
        events: Names of what was done, in order.
    """

    def __init__(self, driver: FakeDriver, engine, signature, *, flavor="tensorrt"):
        self.driver, self.engine, self.signature, self.flavor = driver, engine, signature, flavor
        self.settings, self.refused, self.events = [], {}, []
        self.contexts, self.executed = weakref.WeakSet(), []
        module = ModuleType("fake_tensorrt")
        module.__version__ = engine.tensorrt_version
        module.ILogger = type("ILogger", (), {})
        module.Runtime = lambda logger: Checked(real.Runtime, Runtime(self, logger))
        for name in ("ComputeCapability", "ExecutionContextAllocationStrategy", *RTX_ONLY):
            if flavor == "rtx" or name not in RTX_ONLY:
                setattr(module, name, getattr(real, name))
        self.loaded = TensorRT(flavor, module, Log("fake_tensorrt"))

    def refuse(self, name):
        """Return whether a method is to fail; the log then says so."""
        if self.refused.get(name):
            self.loaded.log.write(1, f"{name} does not feel like it")
        return bool(self.refused.get(name))


class Runtime:
    """`trt.Runtime`."""

    engine_host_code_allowed = True  # so that forbidding it shows

    def __init__(self, trt, logger):
        assert isinstance(logger, trt.loaded.module.ILogger)
        self.trt = trt
        trt.settings.append(self)

    def deserialize_cuda_engine(self, serialized):
        """Load an engine."""
        assert self.trt.driver.contexts, "no context is current"
        assert not self.engine_host_code_allowed
        self.trt.events.append("deserialize")
        if self.trt.refuse("deserialize_cuda_engine"):
            return None
        return Checked(real.ICudaEngine, Engine(self.trt, bytes(serialized)))


class Engine:
    """`trt.ICudaEngine`."""

    device_memory_size_v2 = SCRATCH_BYTES

    def __init__(self, trt, serialized):
        self.trt, self.serialized = trt, serialized
        self.specs = {spec.name: spec for spec in (*trt.signature.inputs, *trt.signature.outputs)}
        self.num_io_tensors = len(self.specs)
        self.num_optimization_profiles = len(trt.engine.profiles)

    def __del__(self):
        """Say whether it was freed while a context was current."""
        self.trt.events.append("freed" if self.trt.driver.contexts else "freed without a context")

    def get_tensor_name(self, index):
        """Name of an input or output."""
        return list(self.specs)[index]

    def get_tensor_mode(self, name):
        """Input or output."""
        return (
            real.TensorIOMode.INPUT
            if self.specs[name] in self.trt.signature.inputs
            else real.TensorIOMode.OUTPUT
        )

    def get_tensor_dtype(self, name):
        """Type of the values."""
        return {"float32": real.float32, "uint8": real.uint8}[self.specs[name].dtype]

    def get_tensor_location(self, _name):
        """Host or GPU."""
        return real.TensorLocation.DEVICE

    def get_tensor_shape(self, name):
        """Shape, -1 for the batch."""
        return tuple(-1 if isinstance(size, str) else size for size in self.specs[name].shape)

    def get_tensor_profile_shape(self, name, index):
        """Smallest, best and largest shape."""
        profile = self.trt.engine.profiles[index]
        rest = self.get_tensor_shape(name)[1:]
        return [(batch, *rest) for batch in (profile.min_batch, profile.opt_batch, profile.max_batch)]

    def create_runtime_config(self):
        """Settings of execution contexts."""
        return Checked(real.IRuntimeConfig, Config(self.trt))

    def create_execution_context(self, how):
        """Make a context, by a strategy or a config."""
        assert self.trt.driver.contexts, "no context is current"
        if self.trt.refuse("create_execution_context"):
            return None
        config = how._implementation if isinstance(how, Checked) else SimpleNamespace(strategy=how)
        assert config.strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        context = Context(self, config)
        self.trt.contexts.add(context)
        return Checked(real.IExecutionContext, context)


class Config:
    """`trt.IRuntimeConfig`."""

    cache = strategy = cuda_graph_strategy = dynamic_shapes_kernel_specialization_strategy = None

    def __init__(self, trt):
        self.trt = trt

    def create_runtime_cache(self):
        """Make an empty cache."""
        return Checked(real.IRuntimeCache, Cache(self.trt))

    def set_runtime_cache(self, cache):
        """Take a cache."""
        self.cache = cache._implementation
        return not self.trt.refuse("set_runtime_cache")

    def set_execution_context_allocation_strategy(self, strategy):
        """Take a strategy."""
        self.strategy = strategy


class Cache:
    """`trt.IRuntimeCache`: knows the batch sizes that were compiled."""

    def __init__(self, trt):
        self.trt, self.batches = trt, set()

    def deserialize(self, content):
        """Fill it."""
        if not content.startswith(KERNELS):
            return False
        self.batches |= set(map(int, content.removeprefix(KERNELS).split()))
        return True

    def serialize(self):
        """Return its content."""
        return KERNELS + " ".join(map(str, sorted(self.batches))).encode()


class Context:
    """`trt.IExecutionContext`."""

    def __init__(self, engine, config):
        self.engine, self.trt, self.config = engine, engine.trt, config
        self.profile, self.memory, self.shapes, self.addresses, self.settled = None, None, {}, {}, False

    def set_optimization_profile_async(self, index, stream):
        """Choose a profile."""
        assert isinstance(stream, int)
        self.profile = index
        return not self.trt.refuse("set_optimization_profile_async")

    def set_device_memory(self, address, size):
        """Take scratch memory."""
        assert size >= self.engine.device_memory_size_v2
        self.memory = floats(self.trt.driver, address, (size // 4,))

    def set_input_shape(self, name, shape):
        """Choose a batch."""
        self.shapes[name] = shape
        profile = self.trt.engine.profiles[self.profile]
        return profile.min_batch <= shape[0] <= profile.max_batch and not self.trt.refuse("set_input_shape")

    def set_tensor_address(self, name, address):
        """Say where an input or output is."""
        self.addresses[name] = address
        return not self.trt.refuse("set_tensor_address")

    def execute_async_v3(self, stream):
        """Queue a run; the first one must not be captured."""
        assert self.trt.driver.contexts, "no context is current"
        assert isinstance(stream, int)
        capturing = self.trt.driver.is_capturing(stream)
        if capturing and (not self.settled or self.trt.refuse("capture")):
            return False
        if self.trt.refuse("execute_async_v3"):
            return False
        self.settled = True
        pixels, tokens = self.trt.signature.inputs[0], self.trt.signature.outputs[0]
        shape = self.shapes[pixels.name]
        rest = tuple(tokens.shape[1:])
        source = floats(self.trt.driver, self.addresses[pixels.name], shape)
        target = floats(self.trt.driver, self.addresses[tokens.name], (shape[0], *rest))
        if getattr(self.config, "cache", None) is not None:
            self.config.cache.batches.add(shape[0])
        self.trt.executed.append((shape[0], self.profile, "captured" if capturing else "queued"))

        scratch = self.memory  # the graph must not keep the context

        def run():
            scratch[:] = source.reshape(-1)[0]  # every context of a slot scribbles over it
            target[:] = expected_tokens(source, rest)

        self.trt.driver.push(stream, run)
        return True
