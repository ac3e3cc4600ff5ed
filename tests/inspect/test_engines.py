"""Whether engines can run here, on machines that are described."""

from __future__ import annotations

import sys

import pytest
from bundle.samples import ORIN, make_engine, make_manifest, make_variant

from pargo_export.bundle import Bundle, BundleTransaction, EngineDevice, sha256_bytes
from pargo_export.inspect import engines
from pargo_export.inspect.engines import find_engine_states
from pargo_export.trt.sidecar import stage_sidecar


def _write(path, *wanted):
    with BundleTransaction(path) as transaction:
        transaction.stage("onnx/fp32.onnx").write_bytes(b"graph")
        files = {"onnx/fp32.onnx": transaction.record("onnx/fp32.onnx", stage="graph")}
        variants = {"fp32": make_variant()}
        graph = make_manifest(files, variants=variants).graph_sha256("onnx/fp32.onnx")
        made = {}
        for name, changes in wanted:
            content = name.encode()
            values = {
                "engine_sha256": sha256_bytes(content),
                "size_bytes": len(content),
                "graph_sha256": graph,
            }
            engine = make_engine(name, **(values | changes))
            transaction.stage(engine.file).write_bytes(content)
            files[engine.file] = transaction.record(engine.file, stage="engine")
            files[engine.sidecar] = stage_sidecar(transaction, engine)
            made[name] = engine
        transaction.commit(make_manifest(files, variants=variants, engines=made))
    return Bundle.open(path)


RTX = {"flavor": "rtx", "compute_capabilities": (), "device": EngineDevice(platform="linux-x86_64")}
ADA = EngineDevice(name="RTX 4090", compute_capability="8.9", platform="linux-x86_64")


def test_engines_of_rtx(tmp_path, monkeypatch):
    """With the real module: the version and the GPU decide, and a changed graph makes an engine stale."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    here = RTX | {"tensorrt_version": trt.__version__}
    bundle = _write(
        tmp_path / "b",
        ("good", here),
        ("old", RTX | {"tensorrt_version": "1.4.0.1"}),
        ("stale", here | {"graph_sha256": sha256_bytes(b"another graph")}),
        ("ampere", here | {"compute_capabilities": ("8.6",)}),
    )
    states = find_engine_states(bundle, ADA)
    # Its file is no engine, which TensorRT for RTX sees from the first bytes: nothing else is wrong with it.
    assert states["good"].refusal.endswith("cannot load it: it is not a serialized engine")
    with monkeypatch.context() as patch:
        patch.setattr(
            engines, "find_invalidity", lambda _tensorrt, header: None if header == b"good" else "?"
        )
        assert find_engine_states(bundle, ADA)["good"].refusal == ""
    assert not any("not a serialized engine" in states[name].refusal for name in ("old", "stale", "ampere"))
    assert {name for name, state in states.items() if state.is_stale} == {"stale"}
    assert f"found TensorRT for RTX {trt.__version__}" in states["old"].refusal
    assert f"pargo-export trt {tmp_path}/b --variant fp32" in states["ampere"].refusal
    assert not any(state.problem for state in states.values())


def test_a_tensorrt_that_is_not_there(tmp_path, monkeypatch):
    """Where TensorRT does not load, that is the reason, with its mend."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    state = find_engine_states(_write(tmp_path / "b", ("fp32-sm87", {})), ORIN)["fp32-sm87"]
    assert state.refusal.startswith("TensorRT is")
    assert "pip install" in state.refusal
    assert not state.is_stale


def test_a_sidecar_that_disagrees(tmp_path):
    """A sidecar that is not the record is a finding, not an error."""
    bundle = _write(tmp_path / "b", ("fp32-sm87", {}))
    path = bundle.file("engines/fp32-sm87.json")
    path.write_bytes(path.read_bytes().replace(b"8.7", b"8.9"))
    assert "sha256" in find_engine_states(bundle, ORIN)["fp32-sm87"].problem


def test_no_engines(tmp_path):
    """A bundle without engines does not look at the machine."""
    assert find_engine_states(_write(tmp_path / "b")) == {}
