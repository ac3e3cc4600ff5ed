"""ONNX Runtime as a baseline: a plain export in a session with default options."""

from __future__ import annotations

from typing import Any

from pargo_export.bench.baseline import Baseline, first_line
from pargo_export.bench.baseline_export import ExportedReference
from pargo_export.bench.records import Subject
from pargo_export.bundle import Bundle
from pargo_export.device.cores import count_usable_cores
from pargo_export.errors import BackendError
from pargo_export.optional import require
from pargo_export.runtime.runner import Array

__all__ = ["PlainExport"]

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class PlainExport(Baseline):
    """`torch.onnx.export` of the reference, in a session whose only option is the number of threads.

    It runs on GPU 0 where ONNX Runtime was built for CUDA, and needs no PyTorch.

    Args:
        bundle: The bundle that it is compared with.
        exported: The export.
        threads: CPU threads; `None`: every physical core.

    Raises:
        BackendError: ONNX Runtime cannot load or run it.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, bundle: Bundle, exported: ExportedReference, threads: int | None) -> None:
        super().__init__(bundle)
        onnxruntime = require("onnxruntime", extra="ort", purpose="run the baseline onnxruntime")
        threads = threads or count_usable_cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers = [name for name in (_CUDA, _CPU) if name in onnxruntime.get_available_providers()]
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(exported.path), options, providers=providers
            )
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the plain export {exported.path}: {first_line(error)}; "
                "try another onnxruntime version"
            ) from error
        on_gpu = _CUDA in self._session.get_providers()
        self._feed = self._session.get_inputs()[0].name
        self.facts = Subject(
            name="onnxruntime",
            kind="onnxruntime",
            is_baseline=True,
            bundle=str(bundle.path),
            precision="float32",
            backend="onnxruntime",
            device="GPU 0" if on_gpu else "CPU",
            description=f"ONNX Runtime {onnxruntime.__version__}, torch.onnx.export of the official architecture as it comes, "
            f"default session options{'' if on_gpu else f', {threads} thread(s)'}",
            graph_sha256=exported.sha256,
        )
        self._warm_up()

    def run(self, batch: Array) -> Array:
        """Compute visual tokens of normalised pixels, float32 `[B, 3, H, W]`."""
        if self._session is None:
            raise BackendError(f"{self.facts.name} is closed; open it again")
        try:
            result: Array = self._session.run(None, {self._feed: batch})[0]
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"{self.facts.description} failed on float32{list(batch.shape)}: {first_line(error)}; if memory ran out, "
                "use a smaller batch size"
            ) from error
        return result

    def close(self) -> None:
        """Free the session; the export is kept."""
        self._session = None
