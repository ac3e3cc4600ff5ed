"""Small bundles for the tests."""

from __future__ import annotations

from pathlib import Path

from pargo_export.bundle import (
    BatchProfile,
    BuiltAsAsked,
    BundleTransaction,
    Calibration,
    CheckpointSource,
    Engine,
    EngineDevice,
    Evidence,
    FileRecord,
    Limits,
    Manifest,
    StageEvidence,
    Variant,
)
from pargo_export.config import ModelConfig, ProjectorConfig, VisionConfig
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.signature import Signature, TensorSpec

MODEL = ModelConfig(
    vision=VisionConfig(image_size=28, width=8, num_layers=1, head_width=4, hidden_width=16),
    projector=ProjectorConfig(kind="linear", encoder_width=8, llm_hidden_size=16),
)
SHA256 = "0123456789abcdef" * 4
ORIN = EngineDevice(
    name="Orin",
    compute_capability="8.7",
    memory_bytes=64 * 10**9,
    platform="linux-aarch64",
    driver="540.4.0",
    cuda="12.6",
    jetson="NVIDIA Jetson AGX Orin Developer Kit",
    l4t="36.4.3",
    jetpack="6.2",
)


def make_variant(name: str = "fp32", **changes) -> Variant:
    """Return a variant whose graph is `onnx/<name>.onnx`."""
    values = {
        "name": name,
        "precision": "float32",
        "component": "all",
        "graph": f"onnx/{name}.onnx",
        "attention": "fused",
        "target": "cpu",
        "opset": 20,
        "input": "float",
        "max_batch": 4,
        "rewrites": ("merge_qkv",),
        "signature": Signature(
            inputs=(TensorSpec(name="pixels", dtype="float32", shape=("batch", 3, 28, 28)),),
            outputs=(TensorSpec(name="visual_tokens", dtype="float32", shape=("batch", 1, 16)),),
        ),
        "evidence": Evidence(
            stages=(
                StageEvidence(
                    stage="visual_tokens",
                    batch=1,
                    source="noise",
                    max_abs=1e-6,
                    cosine=1.0,
                    reference_std=0.5,
                ),
            ),
            limits=Limits(max_abs=1e-4),
            passed=True,
            reference="PyTorch float32",
        ),
        "recipe_sha256": SHA256,
    }
    return Variant(**(values | changes))


def make_calibration(name: str = "default", **changes) -> Calibration:
    """Return a calibration of the variant fp32, with its files in `calibration/`."""
    values = {
        "name": name,
        "variant": "fp32",
        "graph_sha256": SHA256,
        "weights_sha256": SHA256,
        "component": "all",
        "input": "float",
        "rewrites": ("merge_qkv",),
        "preprocessing": PreprocessSpec(height=28, width=28),
        "source": "folder",
        "dataset_sha256": SHA256,
        "seed": 0,
        "shard": (0, 1),
        "num_images": 8,
        "num_evaluation": 2,
        "num_skipped": 0,
        "smoothing": 0.5,
        "table": f"calibration/{name}.json",
        "statistics": f"calibration/{name}.statistics.safetensors",
        "evaluation": f"calibration/{name}.evaluation.safetensors",
    }
    return Calibration(**(values | changes))


def make_engine(name: str = "fp32-sm87", **changes) -> Engine:
    """Return an engine of the variant fp32 for Orin, JetPack 6.2, with its files in `engines/`."""
    values = {
        "name": name,
        "variant": "fp32",
        "file": f"engines/{name}.engine",
        "sidecar": f"engines/{name}.json",
        "flavor": "tensorrt",
        "tensorrt_version": "10.3.0.30",
        "compute_capabilities": ("8.7",),
        "device": ORIN,
        "profiles": (BatchProfile(min_batch=1, opt_batch=1, max_batch=4),),
        "graph_sha256": SHA256,
        "engine_sha256": SHA256,
        "size_bytes": 7,
        "attention": "fused",
        "built_as_asked": BuiltAsAsked(
            source="network",
            asked="float32",
            linears={"float32": 9},
            flops={"float32": 1e6},
            share=1.0,
            limit=0.99,
            passed=True,
        ),
        "build_seconds": 1.5,
        "peak_memory_bytes": 10**9,
        "recipe_sha256": SHA256,
    }
    return Engine(**(values | changes))


def make_manifest(files: dict[str, FileRecord] | None = None, **changes) -> Manifest:
    """Return a manifest that lists `files`."""
    values = {
        "model": MODEL,
        "preprocessing": PreprocessSpec(height=28, width=28),
        "source": CheckpointSource(
            files=("sample.pt",),
            sha256=SHA256,
            dtypes=("bfloat16",),
            num_parameters=123,
            ignored={"language model": 291},
        ),
        "files": files or {},
        "tools": {"torch": "2.9.0"},
    }
    return Manifest(**(values | changes))


def write_bundle(path: Path, contents: dict[str, bytes], **changes) -> Manifest:
    """Commit a manifest with exactly the files `contents`."""
    with BundleTransaction(path) as transaction:
        for relative, content in contents.items():
            transaction.stage(relative).write_bytes(content)
        files = {relative: transaction.record(relative, stage="graph") for relative in contents}
        manifest = make_manifest(files, **changes)
        transaction.commit(manifest)
    return manifest


def files_below(path: Path) -> dict[str, bytes]:
    """Every file below a directory, by relative path, with its content."""
    return {
        str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()
    }
