"""What stands for the GPU and TensorRT."""

from __future__ import annotations

import pytest
from runtime.tensorrt.engines import DEVICE, PLAN, write_engine_bundle

from pargo_export.runtime.runner import RunnerOptions
from pargo_export.runtime.tensorrt.driver import Cuda


@pytest.fixture
def open_engine(tmp_path, monkeypatch):
    """Return a function that opens an engine on the fakes: runner, driver and TensorRT; all are closed at the end."""
    bindings = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from runtime.tensorrt.fake_cuda import FakeDriver
    from runtime.tensorrt.fake_tensorrt import FakeTensorRT

    from pargo_export.runtime.tensorrt.runner import EngineRunner

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = []

    def open_engine(
        *,
        integrated=False,
        streams=1,
        prepare=lambda _driver, _tensorrt: None,
        plan=PLAN,
        bundle=None,
        **fields,
    ):
        if bundle is None:
            bundle = write_engine_bundle(tmp_path / f"bundle{len(opened)}", fields, plan=plan)
        open_engine.bundle = bundle
        (engine,) = bundle.manifest.engines.values()
        driver = FakeDriver(bindings, integrated=integrated)
        signature = bundle.manifest.variants[engine.variant].signature
        tensorrt = FakeTensorRT(driver, engine, signature, flavor=engine.flavor)
        prepare(driver, tensorrt)
        opened.append((driver, tensorrt))
        runner = EngineRunner(
            bundle,
            engine,
            RunnerOptions(streams=streams),
            device=DEVICE,
            tensorrt=tensorrt.loaded,
            cuda=Cuda(driver),
        )
        opened[-1] = (driver, tensorrt, runner)
        return runner, driver, tensorrt

    open_engine.opened = opened
    yield open_engine
    for _, _, *runners in opened:
        for runner in runners:
            runner.close()
