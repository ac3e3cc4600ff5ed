"""OpenVINO, on the CPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pargo_export.bundle import Bundle, Variant
from pargo_export.device.cores import count_usable_cores
from pargo_export.errors import BackendError, BundleError, MissingDependencyError
from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.backends.graph_files import check_graph
from pargo_export.runtime.backends.messages import last_line
from pargo_export.runtime.backends.openvino_attention import attention_extensions
from pargo_export.runtime.backends.openvino_module import require_openvino
from pargo_export.runtime.backends.signal_stack import keep_signal_stack
from pargo_export.runtime.runner import Array, Runner, RunnerOptions
from pargo_export.signature import Signature

__all__ = ["OPENVINO", "OPENVINO_BF16", "OpenVinoRunner"]

_DTYPES = {"float32": "f32", "uint8": "u8"}


class OpenVinoRunner(Runner):
    """A graph compiled by OpenVINO for the CPU.

    Args:
        path: The `.onnx` file; its external data lie beside it.
        signature: What the manifest says about its inputs and outputs.
        bfloat16: Compute what is not quantized in bfloat16, whatever the graph says; faster and less exact.
        options: Threads.

    Raises:
        BackendError: OpenVINO cannot load the graph.
        BundleError: The graph has other inputs or outputs than the manifest says.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path: Path,
        signature: Signature,
        *,
        bfloat16: bool = False,
        options: RunnerOptions | None = None,
    ) -> None:
        openvino = require_openvino()
        options = options or RunnerOptions()
        threads = count_usable_cores() if options.threads is None else options.threads
        version = openvino.__version__.partition("-")[0]
        floats = ", floats in bfloat16" if bfloat16 else ""
        super().__init__(signature, f"OpenVINO {version} on CPU, {threads} thread(s){floats}")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Pinned threads of several runtimes in one process all sit on the same first cores: two of them with one
            # thread each took twice as long as without, on two cores.
            "ENABLE_CPU_PINNING": False,
            # The graph decides what is computed. OpenVINO's own choice is bfloat16 wherever the CPU has it, and 8-bit
            # activations wherever weights are quantized without them.
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        try:
            with keep_signal_stack():
                self._model: Any = openvino.Core().compile_model(_read_graph(path), "CPU", settings)
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"{self.description} cannot load {path.name}: {last_line(error)}; try another openvino version, "
                "the backend 'onnxruntime', or export the graph again"
            ) from error
        _check_signature(path, self._model, signature)
        self._output_names = [spec.name for spec in signature.outputs]
        self._idle: list[Any] = []  # requests: one a concurrent run, they share the compiled graph

    def _execute(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        try:
            results = request.infer(dict(feed))  # copies inputs and outputs
        except Exception as error:  # its classes share no base
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
            raise BackendError(
                f"{self.description} failed on {shapes}: {last_line(error)}; if memory ran out, use a smaller batch size"
            ) from error
        values = dict(zip(self._output_names, results.values(), strict=True))
        self._idle.append(request)
        return values

    def _release(self) -> None:
        self._idle.clear()
        self._model = None


def _read_graph(path: Path) -> Any:
    """Read an ONNX file by that front end alone: `read_model` would try, and hear, every other one on a broken file."""
    frontend = require_openvino("frontend").FrontEndManager().load_by_framework("onnx")
    for extension in attention_extensions():
        frontend.add_extension(extension)
    return frontend.convert(frontend.load(path))


def _check_signature(path: Path, model: Any, signature: Signature) -> None:
    """Compare names, dtypes and numbers of axes with the manifest.

    Raises:
        BundleError: They differ.
    """
    for what, ports, specs in (
        ("inputs", model.inputs, signature.inputs),
        ("outputs", model.outputs, signature.outputs),
    ):
        found = [
            (sorted(port.get_names()), port.element_type.get_type_name(), len(port.partial_shape))
            for port in ports
        ]
        expected = [(spec.name, _DTYPES.get(spec.dtype, spec.dtype), len(spec.shape)) for spec in specs]
        fits = len(found) == len(expected) and all(
            name in names and kind == other_kind and rank == other_rank
            for (names, kind, rank), (name, other_kind, other_rank) in zip(found, expected, strict=True)
        )
        if not fits:
            raise BundleError(
                f"{path.name} has the {what} {found}, the manifest says {expected} (name, type, number of axes); "
                "export the graph again"
            )


def _open(bfloat16: bool, bundle: Bundle, variant: Variant, options: RunnerOptions) -> Runner:
    path = check_graph(bundle, variant, verify=options.verify)
    return OpenVinoRunner(path, variant.signature, bfloat16=bfloat16, options=options)


def _find_obstacle() -> str | None:
    try:
        found = importlib.util.find_spec("openvino") is not None  # importing it takes a fifth of a second
    except ImportError:  # an import hook refuses it
        found = False
    return None if found else "openvino is not installed: pip install 'pargo-export[openvino]'"


def _find_bfloat16_obstacle() -> str | None:
    if obstacle := _find_obstacle():
        return obstacle
    try:
        with keep_signal_stack():
            capabilities = require_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except MissingDependencyError as error:
        return str(error)
    if "BF16" not in capabilities:
        return (
            "this CPU has no bfloat16 products (AVX512_BF16, AMX or Arm BF16), they would be slower than float32: "
            "use the backend 'openvino'"
        )
    return None


# Other float graphs than float32 are widened to it when they are loaded (unless bfloat16 is asked for).
_PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int8_weight_only")
_UNSUPPORTED = {
    "fp8": "OpenVINO emulates float8 products of a CPU in float32, slower than a float32 graph",
    "nvfp4": "OpenVINO has no NVFP4 matrix product",
}

OPENVINO = Backend(
    name="openvino",
    device="CPU",
    precisions=_PRECISIONS,
    unsupported=_UNSUPPORTED,
    targets=("cpu",),
    find_obstacle=_find_obstacle,
    open=functools.partial(_open, False),
)

OPENVINO_BF16 = Backend(
    name="openvino-bf16",
    device="CPU",
    precisions=_PRECISIONS,
    unsupported=_UNSUPPORTED,
    targets=("cpu",),
    automatic=False,  # it does not compute what the evidence of the variant was measured on
    find_obstacle=_find_bfloat16_obstacle,
    open=functools.partial(_open, True),
)
