"""From a bundle to an engine with plugins, and what keeps that engine from being loaded."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from pargo_export.bundle import Bundle, sha256_file
from pargo_export.errors import BackendError
from pargo_export.trt import load_tensorrt
from pargo_export.trt.plugins import load_requirements
from pargo_export.trt.plugins_package import package_sha256

pytest.importorskip("tensorrt_rtx")

BOTH = ["pargo::BlockDiagonalAttention", "pargo::PartialGlobalAttention"]


def test_engine_carries_its_library(run_plugins, compile_library, bundle_to_edit: Path):
    """The record, the sidecar and the bundle agree on the library; an engine built without needs none."""
    path = compile_library("libattention.so")
    found = run_plugins("engine", bundle_to_edit, "fp32", "auto", path)
    sha256 = sha256_file(path)
    file = f"engines/plugins/{sha256[:16]}-libattention.so"
    needed = {"operators": BOTH, "kind": "library", "file": file, "sha256": sha256, "package": ""}
    assert found["record"]["plugins"] == found["sidecar"]["engine"]["plugins"] == [needed]
    assert found["record"]["built_as_asked"]["attention"] == "plugin"
    assert found["reused"] == [False, True]
    assert found["problems"] == []
    assert found["without"]["plugins"] == []
    assert found["without"]["built_as_asked"]["attention"] != "plugin"

    bundle = Bundle.open(bundle_to_edit)
    assert bundle.manifest.files[file].sha256 == sha256
    content = bundle.file(file).read_bytes()
    bundle.file(file).write_bytes(content[:-1] + b"?")
    with pytest.raises(BackendError, match=f"{file}.* has sha256"):
        load_requirements(load_tensorrt("rtx"), bundle.manifest.engines["with-plugins"].plugins, bundle)


def test_engine_names_the_package(run_plugins, bundle_to_edit: Path):
    """Every attention becomes a plugin of pargo_kernels; other sources of its launcher are refused."""
    found = run_plugins("engine", bundle_to_edit, "bf16", "require")
    (needed,) = found["sidecar"]["engine"]["plugins"]
    assert (needed["kind"], needed["operators"], needed["sha256"]) == ("python", BOTH, package_sha256())
    assert found["reused"] == [False, True]
    plan = (bundle_to_edit / found["record"]["file"]).read_bytes()
    graph = onnx.load(bundle_to_edit / "onnx" / "bf16.onnx", load_external_data=False)
    nodes = [node.op_type for node in graph.graph.node if node.domain == "pargo"]
    assert len(nodes) >= 3
    kernels = {
        "PartialGlobalAttention": b"partial_global_kernel",
        "BlockDiagonalAttention": b"block_diagonal_kernel",
    }
    for operator, kernel in kernels.items():
        assert plan.count(b'"name": "%s"' % kernel) >= nodes.count(operator)

    manifest = bundle_to_edit / "manifest.json"
    text = json.loads(manifest.read_text())
    text["engines"]["with-plugins"]["plugins"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(text))
    bundle = Bundle.open(bundle_to_edit)
    with pytest.raises(BackendError, match="sources installed under that version are others"):
        load_requirements(load_tensorrt("rtx"), bundle.manifest.engines["with-plugins"].plugins, bundle)
