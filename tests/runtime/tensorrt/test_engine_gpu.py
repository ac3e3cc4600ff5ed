"""Real engines on a real GPU, against ONNX Runtime on the CPU: for whoever has TensorRT and a GPU that it serves.

    pytest tests/runtime/tensorrt/test_engine_gpu.py

Nothing of this ran where it was written: no such machine was at hand.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from golden_cases import golden_case, golden_model
from tolerances import TOLERANCES

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import BatchProfile, Bundle
from pargo_export.device.cuda_driver import find_driver_obstacle
from pargo_export.engine.build import build_engine
from pargo_export.errors import EngineError
from pargo_export.graph.export import export_onnx
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends.tensorrt import TENSORRT, TENSORRT_RTX

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_driver_obstacle() is not None, reason="no CUDA GPU"),
]

IMAGES = golden_case("pargo_w2").images.numpy()
HALF = TOLERANCES["export-fp16"].value
MAX_BATCH = 4
BUCKETS = tuple(
    BatchProfile(min_batch=low, opt_batch=high, max_batch=high) for low, high in ((1, 1), (2, MAX_BATCH))
)
BUILDS = {
    "fp32": {"variant": "fp32"},
    "fp16": {"variant": "fp16"},
    "buckets": {"variant": "fp16", "profiles": BUCKETS},
    "pixels": {"variant": "fp16-uint8"},
}


@pytest.fixture(scope="module", params=[TENSORRT, TENSORRT_RTX], ids=lambda backend: backend.name)
def built(request, tmp_path_factory):
    """A bundle with the engines of `BUILDS`, for each flavor that is installed and serves this GPU."""
    backend = request.param
    obstacle = backend.find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    path = tmp_path_factory.mktemp("engines") / "bundle"
    model = golden_model("pargo_w2")
    export_onnx(model, path, max_batch=MAX_BATCH)
    export_onnx(model, path, max_batch=MAX_BATCH, precision="fp16", target="cuda")
    export_onnx(model, path, max_batch=MAX_BATCH, precision="fp16", target="cuda", input_kind="uint8")
    try:
        for name, choices in BUILDS.items():
            build_engine(path, flavor=backend.flavor, name=name, **choices)
    except EngineError as error:  # RTX serves some GPUs only
        pytest.skip(str(error))
    return backend, path


@pytest.fixture
def open_built(built):
    """Return a function that opens an engine; runtimes are closed at the end."""
    backend, path = built
    opened = []

    def open_built(name, **options):
        opened.append(Runtime.open(path, engine=name, **options))
        assert (opened[-1].backend, opened[-1].engine.name) == (backend.name, name)
        return opened[-1]

    yield open_built
    for runtime in opened:
        runtime.close()


@pytest.fixture(scope="module")
def reference(built):
    """The float32 graph in ONNX Runtime."""
    with Runtime.open(built[1], backend="onnxruntime", variant="fp32", threads=1) as opened:
        yield opened


def images(batch):
    """Return normalised pixels of a batch."""
    return np.concatenate([IMAGES] * (batch // len(IMAGES) + 1))[:batch]


@pytest.mark.parametrize("name", ["fp32", "fp16", "buckets"])
def test_every_batch_size_agrees_with_the_cpu(open_built, reference, name):
    """Exact sizes, padded ones, and more than fit into one run; TensorRT may multiply float32 in TF32."""
    runtime = open_built(name)
    for batch in (1, 2, 3, 4, 7, 1):
        found = runtime.encode(images(batch))
        assert np.abs(found - reference.encode(images(batch))).max() <= HALF


def test_pictures_of_a_graph_that_normalises(open_built, reference):
    """uint8 pixels go in, and are normalised by the engine."""
    found = open_built("pixels").encode([PHOTOGRAPH] * 3)
    assert np.abs(found - reference.encode([PHOTOGRAPH] * 3)).max() <= HALF


def test_replays_are_equal_and_padding_does_not_leak(open_built):
    """A hundred runs give the same bits, whatever an earlier batch left in the buffers."""
    runtime = open_built("fp16")
    first = runtime.encode(images(3))
    runtime.encode(images(4) * 100)
    assert all(np.array_equal(runtime.encode(images(3)), first) for _ in range(100))


def test_stages_are_within_the_run(open_built):
    """The tokens are those of a run; the stages together take no longer than the call. Copies on a Jetson take none."""
    runtime = open_built("fp16")
    is_integrated = runtime._runner._gpu.is_integrated
    expected = runtime.encode(images(3))
    feed = {runtime.signature.inputs[0].name: images(3)}
    for _ in range(20):
        begin = time.perf_counter()
        outputs, times = runtime.run_stages(feed)
        call_ms = (time.perf_counter() - begin) * 1000
        assert np.array_equal(outputs[runtime.signature.outputs[0].name], expected)
        copies = (times.host_to_device_ms, times.device_to_host_ms)
        assert times.compute_ms > 0
        assert all(copy == 0 if is_integrated else copy > 0 for copy in copies)
        assert times.compute_ms + sum(copies) <= call_ms


def test_several_threads_and_streams(open_built, reference):
    """Every caller gets its own result."""
    runtime = open_built("fp16", streams=2)
    expected = reference.encode(images(2))
    barrier = threading.Barrier(4)

    def call(_):
        barrier.wait()
        return [np.abs(runtime.encode(images(2)) - expected).max() for _ in range(20)]

    with ThreadPoolExecutor(4) as executor:
        assert max(max(errors) for errors in executor.map(call, range(4))) <= HALF


def test_tensors_stay_on_the_gpu(open_built, reference):
    """In order with the caller's stream, another one than the default included."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    runtime = open_built("fp16")
    expected = reference.encode(images(7))
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            pixels = torch.zeros(7, *IMAGES.shape[1:], device="cuda")
            torch.cuda._sleep(10_000_000)  # what fills the pixels is late
            pixels.copy_(torch.from_numpy(images(7)))
            tokens = runtime.encode(pixels)
            assert tokens.device == pixels.device
            found = (tokens * 1).cpu().numpy()
        assert np.abs(found - expected).max() <= HALF


def test_opening_again_and_again_keeps_no_memory(built):
    """What the first opening leaves in the CUDA context stays; nothing is added by the next ones."""
    from pargo_export.runtime.tensorrt.driver import load_cuda
    from pargo_export.runtime.tensorrt.gpu import Gpu

    gpu, free = Gpu(load_cuda()), []
    for _ in range(4):
        with Runtime.open(built[1], engine="fp16") as runtime:
            runtime.encode(images(2))
        with gpu.active():
            free.append(gpu.free_bytes())
    gpu.close()
    assert free[-1] >= free[1] - 2**20


def test_engine_is_chosen_by_itself(built):
    """On the machine that it was built for it comes before every other backend; PyTorch is not needed."""
    backend, path = built
    with Runtime.open(Bundle.open(Path(path))) as opened:
        assert opened.backend == backend.name
    assert backend.name in {"tensorrt", "tensorrt-rtx"}
    assert "pargo_export.runtime.cuda.runner" not in sys.modules
