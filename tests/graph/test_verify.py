"""What `verify` reports about sound bundles, other checkpoints and things that are no bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from golden_cases import golden_case

import pargo_export
from pargo_export import verify
from pargo_export.bundle import Bundle
from pargo_export.errors import BundleError, CheckpointError
from pargo_export.model.sample import write_sample


def _failures(bundle, *arguments, **options):
    return {check.name: check.detail for check in verify(bundle, *arguments, **options).failures}


def test_a_sound_bundle_passes(exported_bundle):
    """Every file and every graph of a bundle as exported passes every check."""
    report = verify(exported_bundle)
    assert report.passed, report.failures
    names = [check.name for check in report.checks]
    assert names[:5] == [
        "manifest.json",
        "onnx/bf16.onnx",
        "onnx/external.onnx",
        "onnx/external.onnx.data",
        "onnx/fp32.onnx",
    ]
    for variant in ("bf16", "external", "fp32"):
        checks = ("recorded parity", "graph", "ONNX checker", "external data", "signature", "metadata", "run")
        assert [name for name in names if name.startswith(f"{variant}: ")] == [
            f"{variant}: {c}" for c in checks
        ]


def test_the_checkpoint_is_compared(exported_bundle):
    """Against its own checkpoint a bundle passes: configuration, weights, parity of every precision and component."""
    case, steps = golden_case("pargo_w2"), []
    report = verify(exported_bundle, case.checkpoint, config=case.config, progress=steps.append)
    assert report.passed, report.failures
    assert [check.name for check in report.checks][-5:] == [
        "checkpoint: configuration",
        "checkpoint: weights",
        "bf16: parity",
        "external: parity",
        "fp32: parity",
    ]
    assert steps[0] == "hashing the files"


def test_one_variant(exported_bundle):
    """Only the graph that was named is checked, but every file."""
    names = [check.name for check in verify(Bundle.open(exported_bundle), variant="external").checks]
    assert "onnx/bf16.onnx" in names
    assert {name.partition(":")[0] for name in names if ": " in name} == {"external"}


def test_bundle_is_left_alone(bundle_to_edit):
    """Verifying writes nothing into the bundle: it works where the bundle is read-only, emulation included."""
    before = sorted(bundle_to_edit.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    bundle_to_edit.chmod(0o555)
    try:
        assert verify(bundle_to_edit).passed
    finally:
        bundle_to_edit.chmod(0o755)
    assert sorted(bundle_to_edit.rglob("*")) == before


def test_another_checkpoint_is_found(exported_bundle, tmp_path):
    """Other weights of the same architecture fail the comparison, and so does their parity."""
    sample = write_sample(tmp_path / "sample.safetensors", Bundle.open(exported_bundle).manifest.model)
    failures = _failures(exported_bundle, sample)
    assert set(failures) == {"checkpoint: weights", "bf16: parity", "external: parity", "fp32: parity"}


def test_another_architecture_is_found(exported_bundle):
    """A checkpoint of another model is one failed check that names what differs."""
    case = golden_case("pargo_w4_freq2")
    failures = _failures(exported_bundle, case.checkpoint, config=case.config)
    assert set(failures) == {"checkpoint: configuration"}
    assert "projector.cross_attention_freq 2 (manifest: 1)" in failures["checkpoint: configuration"]


def test_unreadable_bundles_raise(tmp_path, exported_bundle):
    """Only what is no bundle at all, or an unknown variant, is an error instead of a report."""
    with pytest.raises(BundleError, match="does not exist"):
        verify(tmp_path / "nothing")
    with pytest.raises(BundleError, match="not a bundle"):
        verify(tmp_path)
    with pytest.raises(BundleError, match="choose one of bf16, external, fp32"):
        verify(exported_bundle, variant="int8")


def test_unreadable_manifest_raises(bundle_to_edit):
    """A manifest that is not JSON is an error."""
    (bundle_to_edit / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        verify(bundle_to_edit)


def test_unreadable_checkpoint_raises(exported_bundle, tmp_path):
    """A checkpoint that cannot be read is an error, as it is for an export."""
    with pytest.raises(CheckpointError):
        verify(exported_bundle, tmp_path / "nothing.pt")


def test_torch_is_not_needed_without_a_checkpoint(exported_bundle):
    """Checking a bundle against itself imports no PyTorch."""
    code = "import sys; from pargo_export import verify; print(verify(sys.argv[1]).passed, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(exported_bundle)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(pargo_export.__file__).parent.parent)},
    )
    assert done.stdout.split() == ["True", "False"]
