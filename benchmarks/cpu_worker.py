"""One configuration of `quantization_cpu.py` in a process of its own; not to be started by hand.

A process for each configuration keeps the thread pools and the memory of the libraries apart: an idle one blocks
on its standard input and takes no part in what is timed. Commands come as JSON lines on standard input, answers go to
standard output; whatever a library prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Model = Callable[[Array], Array]
Load = Callable[[], Model]


def prepare_runtime(spec: dict[str, Any]) -> Load:
    """Open a variant of a bundle as an application does."""
    from pargo_export import Runtime

    importlib.import_module(spec["backend"].partition("-")[0])  # importing a library is not loading a model

    def load() -> Model:
        runtime = Runtime.open(
            spec["bundle"],
            backend=spec["backend"],
            variant=spec["variant"],
            threads=spec["threads"],
            verify=False,
            warmup=False,
        )
        feed, output = runtime.signature.inputs[0].name, runtime.signature.outputs[0].name
        return lambda pixels: runtime.run({feed: pixels})[output]

    return load


def prepare_onnxruntime(spec: dict[str, Any]) -> Load:
    """Open an ONNX file in an ONNX Runtime session."""
    import onnxruntime

    def load() -> Model:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = spec["threads"]
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(spec["path"], options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {feed: pixels})[0]

    return load


def prepare_openvino(spec: dict[str, Any]) -> Load:
    """Compile an ONNX or OpenVINO file."""
    import openvino

    def load() -> Model:
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": spec["threads"],
            "ENABLE_CPU_PINNING": False,
        }
        if spec.get("precision"):
            settings["INFERENCE_PRECISION_HINT"] = spec["precision"]
        core = openvino.Core()
        request = core.compile_model(core.read_model(spec["path"]), "CPU", settings).create_infer_request()
        return lambda pixels: next(iter(request.infer([pixels]).values())).copy()

    return load


def prepare_torch(spec: dict[str, Any]) -> Load:
    """Load the checkpoint into the readable float32 reference."""
    import torch

    from pargo_export import load_checkpoint

    torch.set_num_threads(spec["threads"])

    def load() -> Model:
        model = load_checkpoint(spec["checkpoint"])

        def run(pixels: Array) -> Array:
            with torch.inference_mode():
                return model(torch.from_numpy(pixels)).numpy()

        return run

    return load


PREPARE: dict[str, Callable[[dict[str, Any]], Load]] = {
    "runtime": prepare_runtime,
    "onnxruntime": prepare_onnxruntime,
    "openvino": prepare_openvino,
    "torch": prepare_torch,
}


class Worker:
    """The loaded configuration."""

    def __init__(self, spec: dict[str, Any]) -> None:
        load = PREPARE[spec["kind"]](spec)
        start = time.perf_counter()
        self._model = load()
        self.load_s = time.perf_counter() - start
        self._images: Array = np.zeros((1, 3, 1, 1), np.float32)

    def outputs(self, images: str, out: str) -> dict[str, Any]:
        """Run every image by itself, and write what comes out."""
        self._images = np.load(images)
        found = [self._model(self._images[index : index + 1]) for index in range(len(self._images))]
        np.save(out, np.concatenate(found))
        return {}

    def time(self, batch: int) -> dict[str, Any]:
        """Time one run."""
        pixels = np.ascontiguousarray(np.resize(self._images, (batch, *self._images.shape[1:])))
        start = time.perf_counter_ns()
        self._model(pixels)
        return {"ms": (time.perf_counter_ns() - start) / 1e6}


def peak_rss_mb() -> float:
    """Peak memory of this process; `ru_maxrss` would inherit that of the process that started it."""
    status = Path("/proc/self/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def main() -> None:
    """Load, then answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def attempt(work: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 - the study reports it and goes on without this configuration
            answer = {"error": f"{type(error).__name__}: {str(error).strip()[:600]}"}
        answers.write(json.dumps(answer | {"peak_rss_mb": peak_rss_mb()}) + "\n")

    workers: list[Worker] = []

    def start() -> dict[str, Any]:
        workers.append(Worker(json.loads(sys.argv[1])))
        return {"load_s": round(workers[0].load_s, 2)}

    attempt(start)
    for line in sys.stdin:
        command = json.loads(line)
        method = getattr(workers[0], command.pop("do"))
        attempt(lambda method=method, command=command: method(**command))  # type: ignore[misc]


if __name__ == "__main__":
    main()
