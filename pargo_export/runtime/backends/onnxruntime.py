"""ONNX Runtime, on the CPU or on a CUDA GPU."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pargo_export.bundle import Bundle, Variant
from pargo_export.device.cores import count_usable_cores
from pargo_export.device.cuda_driver import find_driver_obstacle, preload_cuda_libraries
from pargo_export.errors import BackendError, BundleError
from pargo_export.optional import require
from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.backends.graph_files import check_graph
from pargo_export.runtime.backends.messages import last_line
from pargo_export.runtime.runner import Array, Runner, RunnerOptions
from pargo_export.signature import Signature

__all__ = ["ONNXRUNTIME_CPU", "ONNXRUNTIME_CUDA", "OnnxRuntimeRunner"]

_CPU_PROVIDER = "CPUExecutionProvider"
_CUDA_PROVIDER = "CUDAExecutionProvider"
_ERRORS_ONLY = 3
_DTYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}

# Results must not depend on the GPU: without TF32 a float32 graph is computed in float32. The search
# for the fastest convolution would be repeated for every new batch size.
_CUDA_OPTIONS = {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


class OnnxRuntimeRunner(Runner):
    """A graph in an ONNX Runtime session.

    Args:
        path: The `.onnx` file; its external data lie beside it.
        signature: What the manifest says about its inputs and outputs.
        cuda: Run on GPU 0; operators without a GPU kernel still run on the CPU.
        options: Threads.

    Raises:
        BackendError: ONNX Runtime cannot load the graph, or the GPU cannot be used.
        BundleError: The graph has other inputs or outputs than the manifest says.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self, path: Path, signature: Signature, *, cuda: bool = False, options: RunnerOptions | None = None
    ) -> None:
        onnxruntime = require("onnxruntime", extra="ort-gpu" if cuda else "ort", purpose="run ONNX graphs")
        options = options or RunnerOptions()
        threads = count_usable_cores() if options.threads is None else options.threads
        device = "GPU 0" if cuda else f"CPU, {threads} thread(s)"
        super().__init__(signature, f"ONNX Runtime {onnxruntime.__version__} on {device}")
        providers: list[Any] = [(_CUDA_PROVIDER, _CUDA_OPTIONS)] if cuda else []
        complaint = preload_cuda_libraries(onnxruntime) if cuda else ""
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path),
                _session_options(onnxruntime, threads, allow_spinning=options.allow_spinning),
                providers=[*providers, _CPU_PROVIDER],
            )
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"{self.description} cannot load {path.name}: {last_line(error)}; try another onnxruntime version, "
                "or export the graph again"
            ) from error
        if cuda and _CUDA_PROVIDER not in self._session.get_providers():
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} fell back from the GPU to the CPU: "
                f"{complaint or 'its message on stderr says why'}; install the CUDA and cuDNN libraries that this "
                "onnxruntime-gpu was built for, or use the backend 'onnxruntime'"
            )
        _check_signature(path, self._session, signature)
        self._output_names = [spec.name for spec in signature.outputs]

    def _execute(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._output_names, dict(feed))
        except Exception as error:  # its classes share no base
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
            raise BackendError(
                f"{self.description} failed on {shapes}: {last_line(error)}; if memory ran out, use a smaller batch size"
            ) from error
        return dict(zip(self._output_names, values, strict=True))

    def _release(self) -> None:
        self._session = None


def _session_options(onnxruntime: Any, threads: int, *, allow_spinning: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graphs are chains: nothing runs side by side
    options.log_severity_level = _ERRORS_ONLY  # it warns about harmless nodes of function bodies
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(allow_spinning)))
    # By default products with 8-bit weights round the activations too, which the graph does not say.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options


def _check_signature(path: Path, session: Any, signature: Signature) -> None:
    """Compare names, dtypes and numbers of axes with the manifest.

    Raises:
        BundleError: They differ.
    """
    for what, nodes, specs in (
        ("inputs", session.get_inputs(), signature.inputs),
        ("outputs", session.get_outputs(), signature.outputs),
    ):
        found = [(node.name, node.type, len(node.shape)) for node in nodes]
        expected = [(spec.name, _DTYPES.get(spec.dtype, spec.dtype), len(spec.shape)) for spec in specs]
        if found != expected:
            raise BundleError(
                f"{path.name} has the {what} {found}, the manifest says {expected} (name, type, number of axes); "
                "export the graph again"
            )


def _open(cuda: bool, bundle: Bundle, variant: Variant, options: RunnerOptions) -> Runner:
    path = check_graph(bundle, variant, verify=options.verify)
    return OnnxRuntimeRunner(path, variant.signature, cuda=cuda, options=options)


def _find_cpu_obstacle() -> str | None:
    try:
        importlib.import_module("onnxruntime")
    except ImportError as error:
        return f"onnxruntime is not installed ({error}): pip install 'pargo-export[ort]'"
    return None


def _find_cuda_obstacle() -> str | None:
    obstacle = _find_cpu_obstacle()
    if obstacle:
        return obstacle.replace("[ort]", "[ort-gpu]")
    onnxruntime = importlib.import_module("onnxruntime")
    if _CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"the installed onnxruntime {onnxruntime.__version__} is built without CUDA: replace it, "
            "pip uninstall onnxruntime; pip install 'pargo-export[ort-gpu]'"
        )
    return find_driver_obstacle()


_NO_FP8 = "ONNX Runtime has no float8 matrix product"
_NO_NVFP4 = "ONNX Runtime has no NVFP4 matrix product"

ONNXRUNTIME_CPU = Backend(
    name="onnxruntime",
    device="CPU",
    # float16 is computed in float32 there, and weight-only products with activations rounded to 8 bits in passing.
    precisions=("float32", "float16", "int8", "int8_weight_only"),
    unsupported={
        "bfloat16": "ONNX Runtime has no bfloat16 matrix product for the CPU",
        "fp8": f"{_NO_FP8}; it would multiply in float32, slower than a float32 graph",
        "nvfp4": _NO_NVFP4,
    },
    targets=("cpu",),
    find_obstacle=_find_cpu_obstacle,
    open=functools.partial(_open, False),
)

ONNXRUNTIME_CUDA = Backend(
    name="onnxruntime-cuda",
    device="CUDA GPU",
    precisions=("float16", "float32", "bfloat16", "int8"),
    unsupported={
        "fp8": _NO_FP8,
        "int8_weight_only": "not tried on CUDA yet; the backends for CPUs run it",
        "nvfp4": _NO_NVFP4,
    },
    targets=("cuda", "rtx"),
    find_obstacle=_find_cuda_obstacle,
    open=functools.partial(_open, True),
)
