"""Bundles with engines that nothing can load: for what happens before, and for stand-ins of TensorRT."""

from __future__ import annotations

from pathlib import Path

from bundle.samples import make_engine, make_manifest, make_variant

from pargo_export.bundle import BatchProfile, Bundle, BundleTransaction, EngineDevice, sha256_bytes

DEVICE = EngineDevice(name="Fake GPU", compute_capability="8.9", platform="linux-x86_64", driver="570.86")
PLAN = b"a serialized engine"
PROFILE = (BatchProfile(min_batch=1, opt_batch=1, max_batch=4),)
VERSIONS = {"tensorrt": "10.3.0.30", "rtx": "1.7.1.116"}


def write_engine_bundle(path: Path, *engines, plan: bytes = PLAN, variant=None) -> Bundle:
    """Write a bundle with a variant and engines of it, each given by the fields that differ."""
    variant = variant or make_variant()
    with BundleTransaction(path) as transaction:
        files = {}
        transaction.stage(variant.graph).write_bytes(b"no graph is needed")
        files[variant.graph] = transaction.record(variant.graph, stage="graph")
        base = make_manifest(files, variants={variant.name: variant})
        made = []
        for fields in engines:
            flavor = fields.get("flavor", "tensorrt")
            values = {
                "name": "fp32-sm89",
                "flavor": flavor,
                "tensorrt_version": VERSIONS[flavor],
                "compute_capabilities": ("8.9",),
                "device": DEVICE,
                "profiles": PROFILE,
                "variant": variant.name,
                "graph_sha256": base.graph_sha256(variant.graph),
                "engine_sha256": sha256_bytes(plan),
                "size_bytes": len(plan),
            } | fields
            engine = make_engine(**values)
            for relative, content in ((engine.file, plan), (engine.sidecar, b"{}")):
                transaction.stage(relative).write_bytes(content)
                files[relative] = transaction.record(relative, stage="engine")
            made.append(engine)
        transaction.commit(base.merged(engines=made, files=files))
    return Bundle.open(path)
