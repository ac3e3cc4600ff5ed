"""The OpenVINO backend: the same tokens as ONNX Runtime, threads, errors, and nothing sent or printed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shared_exports import collect_exports, export_once
from tolerances import TOLERANCES

import pargo_export
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, BundleError, MissingDependencyError
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends import OpenVinoRunner
from pargo_export.runtime.backends import openvino as backend
from pargo_export.runtime.runner import RunnerOptions
from pargo_export.signature import Signature

pytest.importorskip(
    "openvino.frontend", reason="openvino is not installed: pip install 'pargo-export[openvino]'"
)

HAS_BFLOAT16 = backend.OPENVINO_BF16.find_obstacle() is None


@pytest.fixture(scope="module")
def forms_path(tmp_path_factory):
    """Return a bundle with the attention forms that the other one lacks, and with float16; do not write to it."""
    forms = ("structured", "dense", "attention_op")
    exports = {form: export_once(tmp_path_factory, "pargo_w2", attention=form) for form in forms}
    exports["float16"] = export_once(tmp_path_factory, "pargo_w2", precision="fp16")
    return collect_exports(tmp_path_factory.mktemp("forms") / "bundle", exports)


@pytest.fixture(scope="module")
def opened(bundle_path):
    """Return the variant fp32 in OpenVINO on one thread; do not close it."""
    with Runtime.open(bundle_path, backend="openvino", variant="fp32", threads=1) as runtime:
        yield runtime


@pytest.fixture
def graph(bundle_path):
    """Return the path of a graph."""
    return bundle_path / "onnx" / "fp32.onnx"


def _assert_close(found, expected, tolerance):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    error = np.abs(found - expected).max()
    assert error <= TOLERANCES[tolerance].value, f"{error:.3g}"


@pytest.mark.parametrize("variant", ["fp32", "fp32-uint8", "fp32-encoder"])
def test_every_batch_agrees_with_onnxruntime(bundle_path, open_runtime, photos, variant):
    """One graph serves every batch size, in any order, with the tokens that ONNX Runtime computes."""
    expected = open_runtime(variant).encode(photos)
    with Runtime.open(bundle_path, backend="openvino", variant=variant, threads=1) as runtime:
        for count in (1, 4, 2, 5, 1):
            _assert_close(runtime.encode(photos[:count]), expected[:count], "runtime-backends")


@pytest.mark.parametrize("variant", ["fp32-projector", "static"])
def test_projector_takes_features(bundle_path, open_runtime, photos, variant):
    """A projector alone, and one whose batch is fixed in the graph."""
    features = open_runtime("fp32-encoder").encode(photos[:3])
    with Runtime.open(bundle_path, backend="openvino", variant=variant, threads=1) as runtime:
        _assert_close(runtime.encode(features), open_runtime(variant).encode(features), "runtime-backends")


@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [
        ("structured", "runtime-backends"),
        ("dense", "runtime-backends"),
        ("attention_op", "runtime-backends"),
        ("float16", "runtime-backends-float16"),
    ],
)
def test_every_form_agrees_with_onnxruntime(forms_path, photos, variant, tolerance):
    """Graphs without function nodes, and float16, agree as well."""
    with (
        Runtime.open(forms_path, backend="onnxruntime", variant=variant, threads=1) as expected,
        Runtime.open(forms_path, backend="openvino", variant=variant, threads=1) as found,
    ):
        _assert_close(found.encode(photos[:2]), expected.encode(photos[:2]), tolerance)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16 products")
def test_bfloat16_is_asked_for_by_name(bundle_path, opened, photos):
    """`openvino-bf16` rounds to bfloat16, visibly and within its bound; `openvino` does not."""
    with Runtime.open(bundle_path, backend="openvino-bf16", variant="fp32", threads=1) as runtime:
        found, expected = runtime.encode(photos), opened.encode(photos)
        assert "bfloat16" in repr(runtime)
    assert np.abs(found - expected).max() > 10 * TOLERANCES["runtime-backends"].value
    _assert_close(found, expected, "runtime-bfloat16")


def test_cpu_without_bfloat16_is_refused(bundle_path, monkeypatch):
    """Where bfloat16 would be emulated, the backend says so before it loads anything."""

    class Core:
        def get_property(self, *_):
            return ["FP32", "INT8"]

    module = backend.require_openvino()
    monkeypatch.setattr(module, "Core", Core)
    with pytest.raises(BackendError, match=r"openvino-bf16: this CPU has no bfloat16 .*'openvino'"):
        Runtime.open(bundle_path, backend="openvino-bf16")


def test_many_threads_get_what_one_gets(opened, photos):
    """Concurrent calls with different batches give the same bits as calls one after the other."""
    batches = [photos[:count] for count in (1, 2, 3, 4)] * 4
    expected = [opened.encode(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(opened.encode, batches))
    assert all(map(np.array_equal, results, expected))
    assert 1 <= len(opened._runner._idle) <= 6


def test_outputs_belong_to_the_caller(opened):
    """A later run, on the same request, does not write to an earlier output; the feed may be read-only."""
    generator = np.random.default_rng(4)
    feeds = [{"pixel_values": generator.standard_normal((1, 3, 84, 84)).astype(np.float32)} for _ in range(2)]
    feeds[0]["pixel_values"].flags.writeable = False
    first = opened.run(feeds[0])["visual_tokens"]
    kept = first.copy()
    second = opened.run(feeds[1])["visual_tokens"]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    first[:] = 0  # writable
    assert np.array_equal(opened.run(feeds[0])["visual_tokens"], kept)


def test_options_reach_openvino(graph, opened):
    """Threads are what was asked for, floats are float32, no core is claimed and no activation rounded."""
    with OpenVinoRunner(graph, opened.signature, options=RunnerOptions(threads=1)) as runner:
        settings = {
            name: runner._model.get_property(name)
            for name in ("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING", "DYNAMIC_QUANTIZATION_GROUP_SIZE")
        }
        assert settings == {
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        assert runner._model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert "CPU, 1 thread(s)" in runner.description


def test_closed_runner_says_so(bundle_path, photos):
    """After `close`, which may be repeated, the compiled graph is freed and runs are refused."""
    runtime = Runtime.open(bundle_path, backend="openvino", variant="fp32", threads=1)
    runtime.close()
    runtime.close()
    assert (runtime._runner._model, runtime._runner._idle) == (None, [])
    with pytest.raises(BackendError, match=r"closed.*open the bundle again"):
        runtime.encode(photos[0])


@pytest.mark.parametrize("content", [b"no graph" * 100, None], ids=["noise", "cut"])
def test_unreadable_graph_is_a_backend_error(tmp_path, graph, opened, content, capfd):
    """One line of what OpenVINO says, and what to do; its other readers are not asked, so nothing is printed."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(BackendError, match=r"cannot load graph\.onnx: .*parsed.*export the graph again"):
        OpenVinoRunner(path, opened.signature)
    assert capfd.readouterr() == ("", "")


def test_graph_with_other_inputs_is_refused(graph, opened):
    """What the manifest says is compared with what the graph has."""
    own = opened.signature
    for changes in ({"name": "pixels"}, {"dtype": "uint8"}, {"shape": ("batch", 3)}):
        wrong = own.inputs[0].model_copy(update=changes)
        with pytest.raises(BundleError, match=r"fp32\.onnx has the inputs .*pixel_values.*the manifest says"):
            OpenVinoRunner(graph, Signature(inputs=(wrong,), outputs=own.outputs))
    with pytest.raises(BundleError, match=r"has the outputs .*visual_tokens"):
        OpenVinoRunner(graph, Signature(inputs=own.inputs, outputs=own.outputs * 2))


def test_failing_run_is_a_backend_error_and_the_next_one_works(graph, opened):
    """A shape that only the graph refuses is reported with the feed."""
    spec = opened.signature.inputs[0].model_copy(update={"shape": ("batch", 3, "height", "width")})
    with OpenVinoRunner(graph, Signature(inputs=(spec,), outputs=opened.signature.outputs)) as runner:
        with pytest.raises(BackendError, match=r"failed on pixel_values float32\[1, 3, 80, 84\]: "):
            runner.run({"pixel_values": np.zeros((1, 3, 80, 84), np.float32)})
        tokens = runner.run({"pixel_values": np.zeros((1, 3, 84, 84), np.float32)})["visual_tokens"]
        assert tokens.shape == (1, 22, 80)


def test_output_is_silent(bundle_path, photos, capfd):
    """Loading and running prints nothing."""
    with Runtime.open(bundle_path, backend="openvino", threads=1) as runtime:
        runtime.encode(photos[0])
    assert capfd.readouterr() == ("", "")


def test_missing_openvino_names_the_extra(graph, opened, bundle_path, monkeypatch):
    """Without the package the way to install it is the message, and `auto` takes another backend."""
    signature = opened.signature
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pargo-export\[openvino\]'"):
        OpenVinoRunner(graph, signature)
    for name in ("openvino", "openvino-bf16"):
        with pytest.raises(BackendError, match=rf"{name}: openvino is not installed: .*\[openvino\]"):
            Runtime.open(bundle_path, backend=name)
    with Runtime.open(bundle_path) as runtime:
        assert runtime.backend == "onnxruntime"


OFFLINE = """
import os, socket, sys
def refuse(*_, **__):
    os.write(2, b"a connection was attempted")
    raise OSError("offline")
socket.socket.connect = socket.getaddrinfo = os.fork = refuse
from pargo_export.runtime import Runtime
with Runtime.open(sys.argv[1], backend="openvino", threads=1) as runtime:
    pass
print(*sorted({"torch", "onnx", "openvino_telemetry"} & set(sys.modules)))
import openvino_telemetry
"""


def test_nothing_is_sent_or_written(bundle_path, tmp_path):
    """OpenVINO's telemetry stays out: no connection, no process, no file in the home directory, no framework."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE, str(bundle_path)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONPATH": str(Path(pargo_export.__file__).parent.parent),
        },
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_changed_graph_is_never_loaded(bundle_copy):
    """Files are compared with the manifest before OpenVINO reads them."""
    path = bundle_copy / "onnx" / "fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="has sha256"):
        Runtime.open(Bundle.open(bundle_copy), backend="openvino")
