"""CUDA graphs of what an engine queues, for TensorRT; that for RTX makes its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pargo_export.errors import BackendError
from pargo_export.runtime.tensorrt.driver import CudaError
from pargo_export.runtime.tensorrt.gpu import Gpu, is_out_of_memory

__all__ = ["CapturedGraph", "capture"]

_LOGGER = logging.getLogger("pargo_export.runtime")


class CapturedGraph:
    """What was captured, ready to be launched.

    Args:
        gpu: The GPU, active.
        executable: The instantiated graph, which this object owns.
        stream: Where it is launched.
    """

    def __init__(self, gpu: Gpu, executable: Any, stream: Any) -> None:
        self._gpu, self._executable, self._stream = gpu, executable, stream

    def launch(self) -> None:
        """Queue it.

        Raises:
            CudaError: The driver refuses.
        """
        self._gpu.cuda.call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free it; it must not run."""
        self._gpu.cuda.call("cuGraphExecDestroy", self._executable)


def capture(gpu: Gpu, stream: Any, enqueue: Callable[[], None], what: str) -> CapturedGraph | None:
    """Capture what `enqueue` queues on a stream; `None`, with a logged warning, if that cannot be captured.

    TensorRT settles what a new shape asks for in the first run, which must lie behind (`enqueue` was called once). A
    capture that fails leaves engine and stream as they were, so such an engine runs without a graph.

    Args:
        gpu: The GPU, active.
        stream: The stream; nothing may run on it.
        enqueue: Queues one run.
        what: Names it in the warning.

    Raises:
        CudaError: Memory is short, or the graph cannot be made for another reason than what was captured.
    """
    cuda = gpu.cuda
    # Other threads may use the GPU meanwhile: only this one must not.
    mode = cuda.module.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    cuda.call("cuStreamBeginCapture", stream, mode)
    try:
        enqueue()
        graph = cuda.call("cuStreamEndCapture", stream)
    except BackendError as error:
        _abandon(gpu, stream)
        if is_out_of_memory(error):
            raise
        extra = {"pargo_event": "capture_failed"}
        _LOGGER.warning("%s runs without a CUDA graph: %s", what, error, extra=extra)
        return None
    except BaseException:
        _abandon(gpu, stream)
        raise
    try:
        executable = cuda.call("cuGraphInstantiate", graph, 0)
    finally:
        cuda.call("cuGraphDestroy", graph)
    return CapturedGraph(gpu, executable, stream)


def _abandon(gpu: Gpu, stream: Any) -> None:
    """Take a stream out of a capture that failed; one that is out already is left as it is."""
    cuda = gpu.cuda
    idle = cuda.module.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
    if cuda.call("cuStreamIsCapturing", stream) == idle:
        return
    try:
        graph = cuda.call("cuStreamEndCapture", stream)
    except CudaError as error:  # of an invalidated capture it ends the capture, and says so
        _LOGGER.debug("capture ended: %s", error, extra={"pargo_event": "capture_ended"})
    else:
        cuda.call("cuGraphDestroy", graph)
