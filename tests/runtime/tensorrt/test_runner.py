"""The runner of engines on stand-ins of CUDA and TensorRT: batches, buffers, order, failures, release.

The stand-ins prove nothing about either library; they drive our own code.
"""

from __future__ import annotations

import gc
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from runtime.tensorrt.engines import write_engine_bundle

from pargo_export.bundle import BatchProfile
from pargo_export.errors import BackendError, InputError
from pargo_export.runtime.runner import StageTimes
from pargo_export.runtime.tensorrt.driver import Cuda

RANDOM = np.random.default_rng(7)


def profiles(*sizes):
    """Return profiles of smallest, best and largest batches."""
    return tuple(BatchProfile(min_batch=low, opt_batch=best, max_batch=high) for low, best, high in sizes)


def pixels(batch):
    """Return random pixels."""
    return RANDOM.standard_normal((batch, 3, 28, 28), np.float32)


def expected(values):
    """Return what the stand-in of an engine computes."""
    from runtime.tensorrt.fake_tensorrt import expected_tokens

    return expected_tokens(values, (1, 16))


def run(runner, values):
    """Return the tokens of an array."""
    return runner.run({"pixels": values})["visual_tokens"]


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("flavor", ["tensorrt", "rtx"])
def test_every_batch_size_is_computed(open_engine, flavor, integrated):
    """Padded and exact batches, one after the other, on buffers that hold the values of the batch before."""
    runner, driver, _ = open_engine(flavor=flavor, integrated=integrated)
    for batch in (4, 3, 1, 2, 3, 4, 1):
        values = pixels(batch)
        assert np.allclose(run(runner, values), expected(values))
    assert bool(driver.names("cuMemcpy")) != integrated, (
        "an integrated GPU reads and writes the host's memory"
    )


def test_results_belong_to_the_caller(open_engine):
    """A later run changes neither an earlier result nor what was fed."""
    runner, _, _ = open_engine()
    first = pixels(2)
    kept = first.copy()
    tokens = run(runner, first)
    run(runner, pixels(2))
    assert np.allclose(tokens, expected(kept))
    assert np.array_equal(first, kept)
    assert tokens.flags.owndata
    assert tokens.flags.writeable


def test_more_images_than_the_engine_takes_are_refused(open_engine):
    """The message names the engine, not the variant, which may allow more."""
    runner, _, _ = open_engine(profiles=profiles((1, 2, 2)))
    assert runner.max_batch == 2
    with pytest.raises(InputError, match=r"found 3 images, expected at most 2, .* engine fp32-sm89; split"):
        run(runner, pixels(3))


def test_runs_launch_graphs_that_were_captured_when_it_was_opened(open_engine):
    """Each size is queued once, then captured; from then on TensorRT is not asked again."""
    runner, driver, tensorrt = open_engine()
    once = [(size, 0, how) for size in (4, 2, 1) for how in ("queued", "captured")]
    assert tensorrt.executed == once
    driver.calls.clear()
    run(runner, pixels(3))
    assert tensorrt.executed == once
    assert driver.names() == [
        "cuCtxPushCurrent",
        "cuMemcpyAsync",
        "cuGraphLaunch",
        "cuMemcpyAsync",
        "cuStreamSynchronize",
        "cuCtxPopCurrent",
    ]
    graphs = [handle for handle, name in driver.live.items() if name == "cuGraphInstantiate"]
    for batch, graph in ((1, graphs[2]), (2, graphs[1]), (3, graphs[0])):
        driver.calls.clear()
        run(runner, pixels(batch))
        assert [int(arguments[0]) for name, arguments in driver.calls if name == "cuGraphLaunch"] == [graph]


@pytest.mark.parametrize("flavor", ["tensorrt", "rtx"])
def test_stages_are_told_by_events(open_engine, flavor):
    """The same tokens as a run, with the time of each copy and of what lies between; only the rows of the batch count."""
    from runtime.tensorrt.fake_cuda import MARK_MS

    runner, driver, _ = open_engine(flavor=flavor)
    assert runner.times_stages
    values = pixels(3)
    outputs, times = runner.run_stages({"pixels": values})
    assert np.allclose(outputs["visual_tokens"], expected(values))
    copied = outputs["visual_tokens"].nbytes
    assert times == StageTimes(values.nbytes + MARK_MS, 0.5 + MARK_MS, copied + MARK_MS)
    driver.calls.clear()
    run(runner, values)
    assert not driver.names("cuEvent"), "a run that nobody measures records nothing"


def test_where_nothing_is_copied_copies_take_no_time(open_engine):
    """An integrated GPU works in the memory of the host; the computation is timed all the same."""
    from runtime.tensorrt.fake_cuda import MARK_MS

    runner, _, _ = open_engine(integrated=True)
    assert runner.run_stages({"pixels": pixels(2)})[1] == StageTimes(0.0, 0.5 + MARK_MS, 0.0)


@pytest.mark.parametrize(
    "failing",
    ["cuEventCreate", "cuEventRecord", "cuGraphLaunch", "cuStreamSynchronize", "cuEventElapsedTime"],
)
def test_failure_between_stages_frees_the_events(open_engine, failing):
    """Whatever fails is named, no event is left, and the next run is computed."""
    runner, driver, _ = open_engine()
    before = dict(driver.live)
    driver.failures[failing] = (
        [None, "CUDA_ERROR_NOT_READY"] if "Event" in failing else ["CUDA_ERROR_UNKNOWN"]
    )
    with pytest.raises(BackendError, match=f"{failing} failed with CUDA_ERROR_"):
        runner.run_stages({"pixels": pixels(1)})
    assert driver.live == before
    values = pixels(1)
    assert np.allclose(runner.run_stages({"pixels": values})[0]["visual_tokens"], expected(values))


def test_rtx_captures_by_itself(open_engine):
    """With its own graphs on and kernels compiled at once, nothing is captured around it."""
    import tensorrt_rtx as trt

    runner, driver, tensorrt = open_engine(flavor="rtx")
    configs = [context.config for context in tensorrt.contexts]
    assert len(configs) == 3
    assert {config.cuda_graph_strategy for config in configs} == {trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE}
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert {config.dynamic_shapes_kernel_specialization_strategy for config in configs} == {eager}
    assert not driver.names("cuStreamBeginCapture")
    for batch, size in ((1, 1), (2, 2), (3, 4)):
        run(runner, pixels(batch))
        assert tensorrt.executed[-1] == (size, 0, "queued")


def test_engine_that_cannot_be_captured_runs_without_a_graph(open_engine, caplog):
    """The stream leaves the capture, the reason is logged, and the results are the same."""
    with caplog.at_level(logging.WARNING, "pargo_export.runtime"):
        runner, driver, _ = open_engine(prepare=lambda _, trt: trt.refused.update(capture=True))
    assert "engine fp32-sm89, batch 4, runs without a CUDA graph" in caplog.text
    assert "capture does not feel like it" in caplog.text
    values = pixels(3)
    assert np.allclose(run(runner, values), expected(values))
    assert not driver.names("cuGraphLaunch")
    assert set(driver.live.values()) & {"cuStreamEndCapture", "cuGraphInstantiate"} == set()


def test_capture_that_cuda_refuses_is_no_obstacle(open_engine, caplog):
    """A capture that was invalidated ends with an error of the driver; the engine runs without a graph."""

    def invalidate(driver, _):
        driver.failures["cuStreamEndCapture"] = ["CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"] * 3

    runner, driver, _ = open_engine(prepare=invalidate)
    assert caplog.text.count("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED") == 3
    values = pixels(2)
    assert np.allclose(run(runner, values), expected(values))
    assert not driver.names("cuGraphLaunch")


def test_each_size_has_the_profile_that_was_built_for_it(open_engine):
    """Batches are padded to a prepared size, also below the smallest batch of every profile."""
    runner, _, tensorrt = open_engine(profiles=profiles((2, 2, 2), (3, 4, 4)))
    assert sorted({(batch, profile) for batch, profile, _ in tensorrt.executed}) == [(2, 0), (3, 1), (4, 1)]
    assert len(tensorrt.contexts) == 3, "a context for each graph"
    for batch in (1, 2, 3, 4):
        values = pixels(batch)
        assert np.allclose(run(runner, values), expected(values))


def test_callers_in_several_threads(open_engine):
    """Two streams serve eight threads; every caller gets its own result."""
    runner, driver, tensorrt = open_engine(streams=2)
    assert "2 streams" in runner.description
    assert len(tensorrt.contexts) == 6
    assert driver.names("cuStreamCreate") == ["cuStreamCreate"] * 2

    def call(index):
        values = np.full((1 + index % 4, 3, 28, 28), index, np.float32)
        return np.allclose(run(runner, values), expected(values))

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(call, range(64)))
    assert driver.contexts == []


def test_closing_frees_everything(open_engine):
    """Buffers, streams, events, graphs, contexts and the engine; again does nothing, and runs are refused."""
    runner, driver, tensorrt = open_engine(streams=2)
    assert sum(name in {"cuMemAlloc", "cuMemHostAlloc"} for name in driver.live.values()) == 2 * 5
    run(runner, pixels(1))
    runner.close()
    assert driver.live == {}
    assert is_gone(tensorrt.contexts)
    assert tensorrt.events == ["deserialize", "freed"]
    runner.close()
    with pytest.raises(BackendError, match="the runner is closed"):
        run(runner, pixels(1))


@pytest.mark.parametrize("flavor", ["tensorrt", "rtx"])
def test_whatever_fails_at_opening_leaves_nothing(open_engine, flavor, tmp_path):
    """Each call of the driver in turn runs out of memory: one clear error, and all that was made is freed."""
    bundle = write_engine_bundle(tmp_path / "bundle", {"flavor": flavor})
    runner, driver, _ = open_engine(bundle=bundle)
    calls = driver.names()
    runner.close()
    assert {"cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuMemcpyAsync"} <= set(calls)
    for number, name in enumerate(calls, start=1):
        if name in {"cuCtxPopCurrent", "cuGraphDestroy"}:  # what cannot be given back stays
            continue
        with pytest.raises(BackendError) as caught:
            open_engine(bundle=bundle, prepare=lambda fake, _, at=number: setattr(fake, "fail_at", at))
        assert f"{name} failed with CUDA_ERROR_OUT_OF_MEMORY (text of 2)" in str(caught.value)
        driver, tensorrt = open_engine.opened.pop()
        del caught
        assert driver.live == {}, (number, name)
        assert driver.contexts == [], (number, name)
        assert is_gone(tensorrt.contexts), (number, name)
        assert tensorrt.events in ([], ["deserialize", "freed"]), (number, name)


def is_gone(contexts):
    """Whether no context lives, but for what waits for the garbage collection."""
    return not contexts or (gc.collect() and not contexts)


@pytest.mark.parametrize(
    ("what", "flavor"),
    [
        ("deserialize_cuda_engine", "tensorrt"),
        ("create_execution_context", "tensorrt"),
        ("set_optimization_profile_async", "tensorrt"),
        ("set_input_shape", "tensorrt"),
        ("set_tensor_address", "tensorrt"),
        ("execute_async_v3", "tensorrt"),
        ("set_runtime_cache", "rtx"),
    ],
)
def test_what_tensorrt_says_is_in_the_error(open_engine, what, flavor):
    """Every call that TensorRT may refuse is looked at; its log, the engine and a mend are in the message."""
    with pytest.raises(BackendError, match=f"{what} does not feel like it; if memory ran out") as caught:
        open_engine(flavor=flavor, prepare=lambda _, trt: trt.refused.update({what: True}))
    assert "engine fp32-sm89" in str(caught.value)
    driver, tensorrt = open_engine.opened.pop()
    del caught
    assert driver.live == {}
    assert is_gone(tensorrt.contexts)


def test_failed_run_leaves_the_runner_usable(open_engine):
    """TensorRT refuses one run; the next one is computed."""
    runner, _, tensorrt = open_engine(flavor="rtx")
    tensorrt.refused["execute_async_v3"] = True
    with pytest.raises(
        BackendError, match=r"TensorRT for RTX 1\.7\.1\.116 failed in execute_async_v3 \(engine fp32"
    ):
        run(runner, pixels(1))
    tensorrt.refused.clear()
    values = pixels(1)
    assert np.allclose(run(runner, values), expected(values))


def test_error_of_one_call_leaves_the_runner_usable(open_engine):
    """A launch that fails is named by its status; the stream still works, so does the next run."""
    runner, driver, _ = open_engine()
    driver.failures["cuGraphLaunch"] = ["CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"]
    with pytest.raises(
        BackendError,
        match=r"cuGraphLaunch failed with CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES .*; open the bundle again",
    ):
        run(runner, pixels(1))
    values = pixels(1)
    assert np.allclose(run(runner, values), expected(values))


def test_gpu_that_fails_for_good_closes_the_runner(open_engine, caplog):
    """After an error that no call survives every run is refused at once, and closing says what could not be freed."""
    runner, driver, _ = open_engine(streams=2)
    driver.broken = "CUDA_ERROR_ILLEGAL_ADDRESS"
    driver.contexts.append("as of this thread")  # pushing fails as well then, so the thread has its own
    with pytest.raises(BackendError, match="cuCtxPushCurrent failed with CUDA_ERROR_ILLEGAL_ADDRESS"):
        run(runner, pixels(1))
    driver.broken = ""
    driver.failures["cuStreamSynchronize"] = ["CUDA_ERROR_ILLEGAL_ADDRESS"] * 2
    with pytest.raises(BackendError, match="cuStreamSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS"):
        run(runner, pixels(1))
    driver.calls.clear()
    with pytest.raises(BackendError, match=r"failed for good: .*; start the program again"):
        run(runner, pixels(1))
    assert driver.calls == []
    driver.broken = "CUDA_ERROR_ILLEGAL_ADDRESS"
    with caplog.at_level(logging.WARNING, "pargo_export.runtime"):
        runner.close()
    assert "not everything could be freed" in caplog.text
    driver.contexts.clear()


def test_short_memory_is_told_with_what_is_free(open_engine):
    """The message names the engine, the streams and the free memory."""

    def one_slot_only(driver, _):
        driver.failures["cuMemAlloc"] = [None] * 4 + ["CUDA_ERROR_OUT_OF_MEMORY"]

    with pytest.raises(
        BackendError,
        match=r"too small for engine fp32-sm89 with 2 stream\(s\): cuMemAlloc .* 3 MiB are free; open it",
    ):
        open_engine(streams=2, prepare=one_slot_only)
    assert open_engine.opened.pop()[0].live == {}


def test_errors_without_a_text_have_their_number():
    """A status that the driver does not know is told by its number."""

    class Driver:
        def cuInit(self, _flags):  # noqa: N802
            return (4711,)

        def cuGetErrorName(self, _status):  # noqa: N802
            return 1, None

        cuGetErrorString = cuGetErrorName  # noqa: N815

    with pytest.raises(BackendError, match=r"cuInit failed with status 4711 \(status 4711\)"):
        Cuda(Driver()).call("cuInit", 0)
