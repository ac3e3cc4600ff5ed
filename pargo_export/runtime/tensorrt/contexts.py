"""Execution contexts: one for each prepared batch size, all of a slot on the same scratch memory.

NVIDIA's advice for CUDA graphs is one context for each captured graph, with memory that they share ("Inference with
CUDA Graphs" in the guides of both flavors): a graph keeps the addresses and shapes of the context it came from. The contexts
of a slot never run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pargo_export.errors import BackendError
from pargo_export.runtime.tensorrt.buckets import Bucket
from pargo_export.runtime.tensorrt.loading import LoadedEngine
from pargo_export.runtime.tensorrt.memory import Port
from pargo_export.runtime.tensorrt.rtx_cache import RtxCache

if TYPE_CHECKING:
    from tensorrt import IExecutionContext

__all__ = ["ExecutionContext", "scratch_bytes"]

_LEAST_BYTES = 256  # an engine may need none, but the driver allocates no empty memory


def scratch_bytes(engine: LoadedEngine) -> int:
    """Return the memory that one slot needs between input and output, for the largest of all profiles."""
    return max(_LEAST_BYTES, int(engine.trt_engine.device_memory_size_v2))


class ExecutionContext:
    """An engine at one batch size, on fixed addresses.

    Args:
        engine: The engine; its CUDA context must be current.
        bucket: Batch size and profile.
        inputs: Where its inputs are.
        outputs: Where its outputs go.
        scratch: Address of memory of `scratch_bytes`.
        stream: The stream that it runs on.

    Raises:
        BackendError: TensorRT refuses.
    """

    def __init__(
        self,
        engine: LoadedEngine,
        bucket: Bucket,
        inputs: Iterable[Port],
        outputs: Iterable[Port],
        *,
        scratch: int,
        stream: Any,
    ) -> None:
        self._engine, self._stream = engine, int(stream)
        self._what = f"engine {engine.record.name}, batch {bucket.batch}"
        with engine.tensorrt.log.watch():
            trt_context = self._create()
            chosen = trt_context.set_optimization_profile_async(bucket.profile, self._stream)
            self._require("set_optimization_profile_async", chosen)
            trt_context.set_device_memory(scratch, scratch_bytes(engine))
            for port in inputs:
                shape = (bucket.batch, *map(int, port.spec.shape[1:]))
                self._require("set_input_shape", trt_context.set_input_shape(port.spec.name, shape))
            for port in (*inputs, *outputs):
                placed = trt_context.set_tensor_address(port.spec.name, port.address)
                self._require("set_tensor_address", placed)
        self._trt_context: IExecutionContext | None = trt_context

    def enqueue(self) -> None:
        """Queue one run.

        Raises:
            BackendError: TensorRT refuses.
        """
        with self._engine.tensorrt.log.watch():
            queued = self._trt_context is not None and self._trt_context.execute_async_v3(self._stream)
            self._require("execute_async_v3", queued)

    def close(self) -> None:
        """Let TensorRT free it; it must not run."""
        self._trt_context = None

    def _create(self) -> IExecutionContext:
        trt, trt_engine = self._engine.tensorrt.module, self._engine.trt_engine
        if self._engine.cache is None:
            managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            trt_context = trt_engine.create_execution_context(managed)
        else:
            trt_context = trt_engine.create_execution_context(self._rtx_config(trt, self._engine.cache))
        self._require("create_execution_context", trt_context is not None)
        return trt_context

    def _rtx_config(self, trt: Any, cache: RtxCache) -> Any:
        """How TensorRT for RTX is to run; the stubs have nothing of what it alone has."""
        trt_config: Any = self._engine.trt_engine.create_runtime_config()
        managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        trt_config.set_execution_context_allocation_strategy(managed)
        # RTX captures graphs by itself, once the kernels for a shape are compiled; and they are when it is opened.
        trt_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        trt_config.dynamic_shapes_kernel_specialization_strategy = eager
        self._require("set_runtime_cache", trt_config.set_runtime_cache(cache.trt_cache))
        return trt_config

    def _require(self, function: str, succeeded: bool) -> None:
        """Raise what TensorRT logged if a call failed."""
        if not succeeded:
            tensorrt = self._engine.tensorrt
            reason = tensorrt.log.reason("it does not say why")
            raise BackendError(
                f"{tensorrt.title} failed in {function} ({self._what}): {reason}; if memory ran out, open it with "
                "fewer streams, or build an engine for a smaller batch"
            )
