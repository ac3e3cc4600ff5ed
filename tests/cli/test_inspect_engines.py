"""How `inspect` shows the engines of a bundle."""

from __future__ import annotations

import pytest
from bundle.samples import make_engine

from pargo_export.bundle import BundleTransaction, EngineTiming, Evidence, Limits, StageEvidence, sha256_bytes
from pargo_export.trt.sidecar import stage_sidecar

CONTENT = b"engine!"
STAGE = StageEvidence(
    stage="visual_tokens", batch=1, source="photograph", max_abs=0.5, cosine=0.75, reference_std=1.0
)


@pytest.fixture
def bundle(bundle_to_edit):
    """Return a bundle with an engine for Orin that missed its limits there, and whose graph has changed since."""
    asked = make_engine().built_as_asked.model_copy(
        update={"share": 0.25, "passed": False, "casts": ("a", "b", "c", "d"), "notes": ("a remark",)}
    )
    engine = make_engine(
        engine_sha256=sha256_bytes(CONTENT),
        size_bytes=len(CONTENT),
        built_as_asked=asked,
        evidence=Evidence(stages=(STAGE,), limits=Limits(cosine=0.99), passed=False, reference="fp32"),
        timing=EngineTiming(batch=8, median_ms=12.345, num_runs=50),
    )
    with BundleTransaction(bundle_to_edit) as transaction:
        transaction.stage(engine.file).write_bytes(CONTENT)
        files = {
            engine.file: transaction.record(engine.file, stage="engine"),
            engine.sidecar: stage_sidecar(transaction, engine),
        }
        transaction.commit(transaction.previous.merged(engines=[engine], files=files))
    return bundle_to_edit


def test_engines_are_shown(run, bundle):
    """What it is for, what is in it, what was measured, whether it runs here."""
    result = run("inspect", bundle, "--variant", "fp32")
    assert result.exit_code == 0, result.output
    found = " ".join(result.stdout.split())
    for fact in (
        "Engine fp32-sm87, of variant fp32",
        "built with TensorRT 10.3.0.30, for compute capability 8.7",
        "on NVIDIA Jetson AGX Orin Developer Kit, JetPack 6.2, linux-aarch64",
        "batches 1-1-4 (smallest-optimal-largest)",
        "25.0% of the work of the linears in float32 (float32 9), by the network: FAILED, at least 99.0% were to be",
        "casts a, b, c and 1 more",
        "remark a remark",
        "agreement FAILED, max abs 0.5, cosine 0.750000 in 1 measurements, against fp32",
        "time 12.3 ms at batch 8, median of 50",
        "stale the graph of its variant has changed since",
        "runs here no: ",
    ):
        assert fact in found
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_engines_of_other_variants_are_left_out(run, bundle):
    """With `--variant` only what belongs to it is shown."""
    assert "Engine" not in run("inspect", bundle, "--variant", "bf16").stdout


def test_json(run_json, bundle):
    """The record stands in the manifest, what holds for this machine beside it."""
    values = run_json("inspect", bundle)
    assert values["manifest"]["engines"]["fp32-sm87"]["timing"]["median_ms"] == 12.345
    state = values["engines"]["fp32-sm87"]
    assert state["is_stale"] is True
    assert state["refusal"]
    assert state["problem"] == ""
