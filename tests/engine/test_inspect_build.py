"""What is built is what was asked for: refused before the build, and after it where the engine can be loaded."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from engine.rtx import rtx_with

from pargo_export.bundle import BatchProfile, Bundle
from pargo_export.engine.build import build_engine
from pargo_export.engine.inspect_build import require_engine, require_network
from pargo_export.engine.network import parse
from pargo_export.errors import EngineError
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx")
PROFILE = BatchProfile(min_batch=1, opt_batch=2, max_batch=4)


@pytest.fixture
def report(engine_bundle):
    """Return what is found in the network of fp16."""
    bundle, tensorrt = Bundle.open(engine_bundle), load_tensorrt("rtx")
    variant = bundle.variant("fp16")
    parsed = parse(tensorrt, variant, bundle.file(variant.graph))
    return require_network(tensorrt, parsed.network, variant, min_share=0.99)


def runtime_that_loads(engine):
    """Return TensorRT for RTX with a runtime that gives this engine, as there is no GPU to load one."""
    return rtx_with(Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=lambda _plan: engine))


def engine_that_computes_in(tactic, report):
    """Return an engine whose inspector shows every linear in one kernel."""
    shapes = {}
    layers = [
        {
            "Name": item.node,
            "LayerType": "gemm",
            "TacticName": tactic,
            "Inputs": [],
            "Outputs": [],
            "Metadata": f"[ONNX Layer: {item.node}]",
        }
        for item in report.linears
    ]
    inspector = SimpleNamespace(get_engine_information=lambda _: json.dumps({"Layers": layers}))
    context = SimpleNamespace(set_input_shape=shapes.__setitem__)
    engine = SimpleNamespace(
        create_engine_inspector=lambda: inspector, create_execution_context=lambda: context, shapes=shapes
    )
    return engine, inspector, context


def check(tensorrt, report, *, has_gpu=True):
    """Inspect an engine."""
    return require_engine(
        tensorrt, memoryview(b"plan"), report, profile=PROFILE, min_share=0.99, has_gpu=has_gpu
    )


def test_another_precision_than_asked_for_is_refused_before_the_build(bundle):
    """A graph in float32 that calls itself FP16 is not built."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["variants"]["fp32"]["precision"] = "float16"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    steps = []
    with pytest.raises(EngineError, match=r"would not be what was asked for: asked for float16, and 0\.0%"):
        build_engine(bundle, "fp32", progress=steps.append)
    assert not any(step.startswith("building") for step in steps)


def test_without_a_gpu_the_network_speaks(report):
    """The result says where it was read."""
    assert check(load_tensorrt("rtx"), report, has_gpu=False) is report.built
    assert report.built.source == "network"


def test_kernels_of_the_precision_asked_for_are_accepted(report):
    """The inspector's context has the shapes of the profile's chosen batch."""
    engine, inspector, context = engine_that_computes_in(
        "sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize", report
    )
    found = check(runtime_that_loads(engine), report)
    assert (found.source, found.passed) == ("inspector", True)
    assert inspector.execution_context is context
    assert engine.shapes["pixel_values"][0] == PROFILE.opt_batch


def test_kernels_of_another_precision_are_refused(report):
    """An FP32 engine in the place of FP16 is an error, not a warning."""
    engine, *_ = engine_that_computes_in("sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize", report)
    with pytest.raises(EngineError, match=r"asked for float16, and 0\.0%.*--min-share"):
        check(runtime_that_loads(engine), report)


def test_an_engine_for_other_gpus_is_noted(report):
    """RTX builds for GPUs that are not here; TensorRT must be able to load what it built."""
    rtx = runtime_that_loads(None)
    assert "not loaded on this machine" in check(rtx, report).notes[-1]
    tensorrt = rtx_with("tensorrt", Runtime=rtx.module.Runtime, __version__="10.3.0")
    with pytest.raises(EngineError, match="cannot load itself"):
        check(tensorrt, report)


def test_without_memory_for_a_context_the_inspector_goes_without(report):
    """Types may be missing then; the inspection still counts kernels by their names."""
    engine, inspector, _ = engine_that_computes_in("sm80_xmma_gemm_f16f16_f16f16_f16_tn_n", report)
    engine.create_execution_context = lambda: None
    assert check(runtime_that_loads(engine), report).passed
    assert not hasattr(inspector, "execution_context")
