"""Records of engines that do not exist."""

from __future__ import annotations

from pargo_export.bundle import BatchProfile, BuiltAsAsked, Engine, EngineDevice

__all__ = ["engine_of"]


def engine_of(variant: str, opt_batch: int = 1, **changes: object) -> Engine:
    """Return the record of an engine of a variant, for compute capability 8.6."""
    name = changes.get("name", f"{variant}-rtx")
    values = {
        "name": name,
        "variant": variant,
        "file": f"engines/{name}.engine",
        "sidecar": f"engines/{name}.json",
        "flavor": "rtx",
        "tensorrt_version": "1.7.1",
        "compute_capabilities": ("8.6",),
        "device": EngineDevice(platform="linux-x86_64"),
        "profiles": (BatchProfile(min_batch=1, opt_batch=opt_batch, max_batch=4),),
        "graph_sha256": "0" * 64,
        "engine_sha256": "0" * 64,
        "size_bytes": 1,
        "attention": "fused",
        "built_as_asked": BuiltAsAsked(
            source="network", asked="float32", linears={}, flops={}, share=1, limit=0.99, passed=True
        ),
        "build_seconds": 1.0,
        "peak_memory_bytes": 1,
        "recipe_sha256": "0" * 64,
    }
    return Engine.parse(values | changes, source="a test")
