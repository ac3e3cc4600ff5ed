"""A bundle to hand over: a real graph with its weights beside it, evaluation images, and engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle.samples import make_calibration, make_engine, make_manifest, make_variant, write_bundle
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from pargo_export.bundle import FileRecord, Manifest, PluginRequirement, sha256_bytes

ENGINE = b"serialized engine"
PIXELS = np.arange(3 * 3 * 28 * 28, dtype=np.uint32).reshape(3, 3, 28, 28).astype(np.uint8)


def graph_bytes(folder: Path) -> tuple[bytes, bytes]:
    """Return a graph `pixels [batch, 3, 28, 28] -> visual_tokens [batch, 1, 16]` and its weights, a file beside it."""
    weight = np.random.default_rng(0).normal(size=(2352, 16)).astype(np.float32) / 50
    nodes = [
        helper.make_node("Reshape", ["pixels", "shape"], ["flat"], name="projector/Reshape"),
        helper.make_node(
            "MatMul", ["flat", "weight"], ["visual_tokens"], name="projector.llm_projection/MatMul"
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 28, 28])],
        [helper.make_tensor_value_info("visual_tokens", TensorProto.FLOAT, ["batch", 1, 16])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([-1, 1, 2352]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "fp32.onnx"
    (folder / "fp32.onnx.data").unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, path, save_as_external_data=True, location="fp32.onnx.data", size_threshold=1024)
    return path.read_bytes(), (folder / "fp32.onnx.data").read_bytes()


def _graph_sha256(contents: dict[str, bytes]) -> str:
    files = {
        path: FileRecord(sha256=sha256_bytes(content), size_bytes=len(content), stage="graph")
        for path, content in contents.items()
    }
    return make_manifest(files).graph_sha256("onnx/fp32.onnx")


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the bundle; changes of the TensorRT engine and of the manifest by keyword."""

    def write(path: Path, *, engine=None, **changes) -> Manifest:
        graph, weights = graph_bytes(tmp_path)
        contents = {"onnx/fp32.onnx": graph, "onnx/fp32.onnx.data": weights}
        calibration = make_calibration()
        evaluation = save({"pixels": PIXELS}, metadata={"names": "[]"})
        contents |= dict(zip(calibration.files, (b"{}", b"statistics", evaluation), strict=True))
        common = {
            "graph_sha256": _graph_sha256(contents),
            "engine_sha256": sha256_bytes(ENGINE),
            "size_bytes": len(ENGINE),
        }
        engines = [
            make_engine(**(common | (engine or {}))),
            make_engine(
                "fp32-rtx",
                **common,
                flavor="rtx",
                tensorrt_version="1.7.1.116",
                compute_capabilities=("8.6", "8.9"),
            ),
        ]
        for item in engines:
            contents |= dict.fromkeys(item.files, ENGINE)
        values = {
            "variants": {"fp32": make_variant()},
            "calibrations": {"default": calibration},
            "engines": {item.name: item for item in engines},
        }
        return write_bundle(path, contents, **(values | changes))

    return write


@pytest.fixture
def bundle(tmp_path, write) -> Path:
    """A bundle with the variant fp32, evaluation images and the engines fp32-sm87 and fp32-rtx."""
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def library() -> PluginRequirement:
    """A plugin library that an engine needs; its content is that of the engine."""
    return PluginRequirement(
        operators=("pargo::PartialGlobalAttention",),
        kind="library",
        file="engines/plugins/libpargo.so",
        sha256=sha256_bytes(ENGINE),
    )
