"""The ONNX Runtime backend: sessions, errors, and whether CUDA is really there."""

from __future__ import annotations

import sys
import types

import numpy as np
import onnxruntime
import pytest

from pargo_export.device import cuda_driver
from pargo_export.errors import BackendError, BundleError, MissingDependencyError
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends import OnnxRuntimeRunner
from pargo_export.runtime.backends import onnxruntime as backend
from pargo_export.runtime.runner import RunnerOptions
from pargo_export.signature import Signature


@pytest.fixture
def graph(bundle_path):
    """Return the path of a graph."""
    return bundle_path / "onnx" / "fp32.onnx"


@pytest.fixture
def signature(runtime):
    """Return its signature."""
    return runtime.signature


def test_options_reach_the_session(graph, signature):
    """Threads and spinning are what was asked for, and harmless warnings are silenced."""
    with OnnxRuntimeRunner(graph, signature, options=RunnerOptions(threads=3, allow_spinning=True)) as runner:
        options = runner._session.get_session_options()
        assert options.intra_op_num_threads == 3
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
        assert options.log_severity_level == 3
        assert "3 thread(s)" in runner.description
    with OnnxRuntimeRunner(graph, signature) as runner:
        options = runner._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.intra_op_num_threads >= 1


def test_output_is_silent(graph, signature, capfd):
    """Loading and running prints nothing."""
    with OnnxRuntimeRunner(graph, signature) as runner:
        runner.run({"pixel_values": np.zeros((2, 3, 84, 84), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_unreadable_graph_is_a_backend_error(tmp_path, signature):
    """One line of what ONNX Runtime says, and what to do."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph" * 100)
    with pytest.raises(
        BackendError, match=r"cannot load graph\.onnx: .*INVALID_PROTOBUF.*export the graph again"
    ):
        OnnxRuntimeRunner(path, signature)


def test_graph_with_other_inputs_is_refused(graph, signature):
    """What the manifest says is compared with what the graph has."""
    spec = signature.inputs[0]
    for changes in ({"name": "pixels"}, {"dtype": "uint8"}, {"shape": ("batch", 3)}):
        wrong = Signature(inputs=(spec.model_copy(update=changes),), outputs=signature.outputs)
        with pytest.raises(BundleError, match=r"fp32\.onnx has the inputs .*pixel_values.*the manifest says"):
            OnnxRuntimeRunner(graph, wrong)


def test_failing_run_is_a_backend_error(graph, signature):
    """A shape that only the graph refuses is reported with the feed."""
    spec = signature.inputs[0].model_copy(update={"shape": ("batch", 3, "height", "width")})
    with (
        OnnxRuntimeRunner(graph, Signature(inputs=(spec,), outputs=signature.outputs)) as runner,
        pytest.raises(BackendError, match=r"failed on pixel_values float32\[1, 3, 80, 84\]: "),
    ):
        runner.run({"pixel_values": np.zeros((1, 3, 80, 84), np.float32)})


def test_missing_onnxruntime_names_the_extra(bundle_path, graph, signature, monkeypatch):
    """Without the package the way to install it is the message."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pargo-export\[ort\]'"):
        OnnxRuntimeRunner(graph, signature)
    with pytest.raises(BackendError, match=r"onnxruntime: .* not installed .*\[ort\]"):
        Runtime.open(bundle_path, backend="onnxruntime")


def test_cuda_that_is_not_built_in_is_refused(bundle_path, monkeypatch):
    """Asking for the GPU with a CPU package is answered with the package to install."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match=r"built without CUDA.*\[ort-gpu\]"):
        Runtime.open(bundle_path, backend="onnxruntime-cuda")


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (None, "no NVIDIA driver is installed"),
        ({"cuInit": 100}, "no usable GPU .*cuInit returned 100"),
        ({"cuDeviceGetCount": 3}, "cannot count"),
        ({}, "sees no GPU"),
    ],
)
def test_cuda_without_a_gpu_is_refused(bundle_path, monkeypatch, driver, reason):
    """A package built for CUDA lists its provider everywhere; the driver decides whether it can work."""

    def load(_):
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        calls = {"cuInit": 0, "cuDeviceGetCount": 0} | driver
        return types.SimpleNamespace(
            **{name: lambda *_, status=status: status for name, status in calls.items()}
        )

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", load)
    with pytest.raises(BackendError, match=f"onnxruntime-cuda: .*{reason}"):
        Runtime.open(bundle_path, backend="onnxruntime-cuda")


def test_silent_fallback_to_the_cpu_is_refused(graph, signature, monkeypatch):
    """A session without the provider that was asked for is an error with the libraries that did not load."""

    def preload():
        print("Failed to load libcublasLt.so.13: no such file")  # noqa: T201 - as ONNX Runtime does
        print("Please follow the documentation")  # noqa: T201

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(BackendError) as caught:
        OnnxRuntimeRunner(graph, signature, cuda=True)
    assert (
        "fell back from the GPU to the CPU: Failed to load libcublasLt.so.13: no such file; install"
        in str(caught.value)
    )


def test_old_versions_cannot_preload():
    """Before 1.21 there is nothing to call."""
    assert cuda_driver.preload_cuda_libraries(types.ModuleType("onnxruntime")) == ""


def test_automatic_choice_survives_a_package_built_for_cuda(bundle_path, monkeypatch):
    """On a machine without a driver the CPU is chosen."""
    monkeypatch.setattr(backend, "_find_cuda_obstacle", lambda: "no NVIDIA driver is installed")
    with Runtime.open(bundle_path) as runtime:
        assert runtime.backend == "onnxruntime"
