"""The runner and the runtime around it, with slots that compute on the CPU in place of CUDA graphs."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from golden_cases import golden_case
from tolerances import TOLERANCES

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, InputError
from pargo_export.runtime import Runtime, select
from pargo_export.runtime import computation as computation_module
from pargo_export.runtime.backends.cuda import CUDA
from pargo_export.runtime.cuda import runner as runner_module
from pargo_export.runtime.cuda.host_memory import HostResults
from pargo_export.runtime.cuda.loading import load_program
from pargo_export.runtime.cuda.runner import CudaRunner
from pargo_export.runtime.runner import RunnerOptions, StageTimes
from pargo_export.runtime.selection import open_runner

IMAGES = golden_case("pargo_w2").images.numpy()
HALF = TOLERANCES["export-fp16"].value
BACKEND = dataclasses.replace(CUDA, find_obstacle=lambda: None)


class CpuSlot:
    """Computes what a slot computes, and keeps what it was given."""

    def __init__(self, program):
        self.program, self.seen = program, []

    def close(self):
        """It holds nothing."""

    def run_host(self, values, results):
        """Compute a host array."""
        self.seen.append((values.dtype, values.shape))
        computed = self.program(torch.from_numpy(values)).float()
        tensor, array = results.empty(tuple(computed.shape))
        tensor.copy_(computed)
        return array

    def run_stages(self, values, results):
        """Compute a host array, with times that tell how many images it had."""
        return self.run_host(values, results), StageTimes(0.1, len(values), 0.2)

    def run_device(self, values, result):
        """Compute a tensor."""
        self.seen.append((values.dtype, tuple(values.shape)))
        result.copy_(self.program(values))


@pytest.fixture
def on_cpu(monkeypatch):
    """Let runners make CPU slots; return the slots."""
    slots = []

    def make_slots(_, path, manifest, variant, streams, options):
        program = load_program(path, manifest, variant, device="cpu", options=options)
        slots[:] = [CpuSlot(program) for _ in range(streams)]
        return slots

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "no GPU at all")
    monkeypatch.setattr(CudaRunner, "_make_slots", make_slots)
    monkeypatch.setattr(runner_module, "HostResults", lambda: HostResults(pin=False))
    return slots


@pytest.fixture
def open_on_cpu(cuda_bundle, on_cpu):
    """Return a function that opens a variant; runtimes are closed at the end."""
    opened = []

    def open_variant(name, **options):
        bundle = Bundle.open(cuda_bundle)
        selection = select(bundle, variant=name, backends=[BACKEND])
        choice, runner = open_runner(bundle, selection, RunnerOptions(warmup=False, **options))
        runner._device = torch.device("cpu")
        opened.append(Runtime(bundle, choice, runner))
        return opened[-1]

    yield open_variant
    for runtime in opened:
        runtime.close()
    assert on_cpu is not None


@pytest.fixture
def expected(cuda_bundle):
    """Return what ONNX Runtime computes in float32 of the images."""
    with Runtime.open(cuda_bundle, backend="onnxruntime", variant="fp32", threads=1) as runtime:
        return runtime.encode(IMAGES)


def test_pictures_reach_the_gpu_as_uint8(open_on_cpu, on_cpu, cuda_bundle):
    """The CPU decodes and resizes, the GPU normalises; the tokens are those of the float32 graph."""
    runtime = open_on_cpu("fp16")
    tokens = runtime.encode([PHOTOGRAPH, PHOTOGRAPH])
    assert on_cpu[0].seen == [(np.uint8, (2, 3, 84, 84))]
    with Runtime.open(cuda_bundle, backend="onnxruntime", variant="fp32", threads=1) as reference:
        assert np.abs(tokens - reference.encode([PHOTOGRAPH, PHOTOGRAPH])).max() <= HALF


def test_normalised_pixels_stay_float(open_on_cpu, on_cpu, expected):
    """Float arrays, `run` on the signature's input, and batches that mix both kinds."""
    runtime = open_on_cpu("fp16")
    assert np.abs(runtime.encode(IMAGES) - expected).max() <= HALF
    found = runtime.run({"pixel_values": IMAGES})["visual_tokens"]
    assert np.abs(found - expected).max() <= HALF
    mixed = runtime.encode([IMAGES[0], PHOTOGRAPH])
    assert np.abs(mixed[0] - expected[0]).max() <= HALF
    assert [dtype for dtype, _ in on_cpu[0].seen] == [np.float32] * 3
    prepared = runtime.prepare(PHOTOGRAPH)
    assert prepared.dtype == np.float32, "as the signature says"
    alone = runtime.run({"pixel_values": prepared})["visual_tokens"]
    assert np.abs(mixed[1] - alone[0]).max() <= HALF


def test_prepared_pixels_of_any_kind(open_on_cpu, on_cpu):
    """uint8 pixels are taken as they are; a graph that normalises takes nothing else."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 84, 84), np.uint8)
    tokens = open_on_cpu("fp16").encode(pixels)
    assert on_cpu[0].seen == [(np.uint8, (3, 3, 84, 84))]
    uint8 = open_on_cpu("fp16-uint8")
    assert np.abs(uint8.encode(pixels) - tokens).max() <= HALF
    assert np.array_equal(uint8.run({"pixel_values": pixels})["visual_tokens"], uint8.encode(pixels))
    with pytest.raises(InputError, match="expected uint8"):
        uint8.run({"pixel_values": IMAGES})


def test_components(open_on_cpu, expected):
    """Features out of the encoder go into the projector; it takes no pixels."""
    features = open_on_cpu("fp16-encoder").encode(IMAGES)
    projector = open_on_cpu("fp16-projector")
    assert np.abs(projector.encode(features) - expected).max() <= HALF
    assert not projector._runner.normalizes
    with pytest.raises(InputError, match="expected float32"):
        projector.run({"image_features": features.astype(np.uint8)})


def test_times_of_the_stages_come_with_the_tokens(open_on_cpu, on_cpu, expected, monkeypatch):
    """What the slot tells reaches the caller; the feed is checked, and a failure is told, as in a run."""
    runtime = open_on_cpu("fp16")
    assert runtime.times_stages
    outputs, times = runtime.run_stages({"pixel_values": IMAGES})
    assert np.abs(outputs["visual_tokens"] - expected).max() <= HALF
    assert times == StageTimes(0.1, len(IMAGES), 0.2)
    with pytest.raises(InputError, match=r"found 5 images, expected at most 4.*split them"):
        runtime.run_stages({"pixel_values": np.zeros((5, 3, 84, 84), np.float32)})

    def fail(*_):
        raise RuntimeError("CUDA error: out of events")

    monkeypatch.setattr(on_cpu[0], "run_stages", fail)
    with pytest.raises(BackendError, match=r"running float32\[3, 3, 84, 84\]: CUDA error: out of events"):
        runtime.run_stages({"pixel_values": IMAGES})


def test_many_images_are_split(open_on_cpu, on_cpu, expected):
    """No run has more images than the variant was made for."""
    runtime = open_on_cpu("fp16")
    tokens = runtime.encode(np.concatenate([IMAGES, IMAGES, IMAGES]))
    assert [shape[0] for _, shape in on_cpu[0].seen] == [4, 4, 1]
    assert np.abs(tokens[3:6] - expected).max() <= HALF
    with pytest.raises(InputError, match=r"found 5 images, expected at most 4.*split them"):
        runtime.run({"pixel_values": np.zeros((5, 3, 84, 84), np.float32)})


def test_results_belong_to_the_caller(open_on_cpu):
    """A later run does not write to an earlier result."""
    runtime = open_on_cpu("fp16")
    first = runtime.encode(IMAGES)
    kept = first.copy()
    runtime.encode(-IMAGES)
    assert np.array_equal(first, kept)
    first += 1


def test_device_tensors_do_not_touch_the_host(open_on_cpu, on_cpu, expected, monkeypatch):
    """A tensor that fits goes to the slot as it is, in runs of the batch size, and a tensor comes back."""
    monkeypatch.setattr(computation_module, "is_on_cuda", lambda value: isinstance(value, torch.Tensor))
    runtime = open_on_cpu("fp16")
    tokens = runtime.encode(torch.from_numpy(IMAGES).double(), batch_size=2)
    assert isinstance(tokens, torch.Tensor)
    assert np.abs(tokens.numpy() - expected).max() <= HALF
    one = runtime.encode(torch.from_numpy(IMAGES)[1])
    assert np.abs(one.numpy() - expected[1:2]).max() <= HALF
    runtime.encode(torch.zeros((1, 3, 84, 84), dtype=torch.uint8))
    assert [(dtype, shape[0]) for dtype, shape in on_cpu[0].seen] == [
        (torch.float64, 2),
        (torch.float64, 1),
        (torch.float32, 1),
        (torch.uint8, 1),
    ]
    on_cpu[0].seen.clear()
    runtime.encode(torch.zeros((90, 70, 3), dtype=torch.uint8))  # a picture: it is fitted on the host
    assert on_cpu[0].seen == [(np.uint8, (1, 3, 84, 84))]
    with pytest.raises(InputError, match="batch_size: found 9"):
        runtime.encode(torch.from_numpy(IMAGES), batch_size=9)
    runtime.close()
    with pytest.raises(BackendError, match="closed"):
        runtime.encode(torch.from_numpy(IMAGES))


def test_streams_serve_callers_at_once(open_on_cpu, on_cpu, expected):
    """Every stream is used, and every caller gets the tokens of its own images."""
    runtime = open_on_cpu("fp16", streams=2)
    assert "2 streams" in repr(runtime)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(runtime.encode, [IMAGES[index % 3] for index in range(12)]))
    for index, tokens in enumerate(found):
        assert np.abs(tokens[0] - expected[index % 3]).max() <= HALF
    assert all(slot.seen for slot in on_cpu)


def test_failure_of_cuda_is_a_backend_error(open_on_cpu, on_cpu, monkeypatch):
    """With the shape that failed, and the slot is free again."""
    runtime = open_on_cpu("fp16")

    def fail(*_):
        raise RuntimeError("CUDA error: device-side assert triggered\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(on_cpu[0], "run_host", fail)
        with pytest.raises(BackendError, match=r"running float32\[3, 3, 84, 84\]: CUDA error: device-side"):
            runtime.encode(IMAGES)
    assert runtime.encode(IMAGES).shape == (3, 22, 80)


def test_short_memory_is_explained(cuda_bundle, on_cpu, monkeypatch):
    """The message has the need, what is free, and the largest batch that fits."""

    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(CudaRunner, "_make_slots", fail)
    monkeypatch.setattr(runner_module, "_free_bytes", lambda _: 10**6)
    bundle = Bundle.open(cuda_bundle)
    with pytest.raises(BackendError, match=r"'fp16' needs about .* 1 MiB are free; not even one image fits"):
        open_runner(bundle, select(bundle, variant="fp16", backends=[BACKEND]), RunnerOptions())
    assert on_cpu == []


def test_backends_on_the_host_take_no_device_arrays(cuda_bundle):
    """Asking for it is an error with the type that was found."""
    with (
        Runtime.open(cuda_bundle, backend="onnxruntime", variant="fp32", threads=1) as runtime,
        pytest.raises(BackendError, match="takes arrays on the host only, found Tensor"),
    ):
        runtime._runner.run_on_device(torch.zeros(1), 1)


def test_backends_on_the_host_do_not_tell_stages(cuda_bundle):
    """It is known before asking, and asking is an error."""
    with Runtime.open(cuda_bundle, backend="onnxruntime", variant="fp32", threads=1) as runtime:
        assert not runtime.times_stages
        with pytest.raises(BackendError, match="does not tell the times of its stages"):
            runtime.run_stages({"pixel_values": IMAGES})
