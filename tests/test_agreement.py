"""A backend is held against the float32 variant of the bundle."""

from __future__ import annotations

import pytest

from pargo_export.agreement import check_backend
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends import OpenVinoRunner
from pargo_export.runtime.backends.cuda import CUDA


def test_every_variant_that_the_backend_runs(exported_bundle):
    """A check a variant, with what was measured; what cannot run is left out."""
    checks = check_backend(exported_bundle, "openvino")
    assert [check.name for check in checks] == ["bf16: openvino", "external: openvino", "fp32: openvino"]
    assert all(check.ok for check in checks), checks
    by_name = {check.name: check.detail for check in checks}
    assert "against fp32 in onnxruntime" in by_name["bf16: openvino"]
    assert "against external in onnxruntime" in by_name["external: openvino"]


def test_a_reference_of_several_variants_runs_once(exported_bundle, monkeypatch):
    """On the CPU it takes longer than everything else."""
    bundle, opened, open_runtime = Bundle.open(exported_bundle), [], Runtime.open
    fp32 = bundle.variant("fp32")
    twins = {"fp32": fp32, "twin": fp32.model_copy(update={"name": "twin"})}
    bundle.manifest = bundle.manifest.model_copy(update={"variants": twins})

    def record(source, *, backend, variant, **choices):
        opened.append(f"{variant} on {backend}")
        return open_runtime(source, backend=backend, variant=variant, **choices)

    monkeypatch.setattr(Runtime, "open", record)
    assert all(check.ok for check in check_backend(bundle, "openvino"))
    assert opened == ["fp32 on openvino", "fp32 on onnxruntime", "twin on openvino"]


def test_a_backend_that_computes_something_else_fails(exported_bundle, monkeypatch):
    """One percent is more than float32 may be off."""
    execute = OpenVinoRunner._execute

    def wrong(self, feed):
        return {name: value * 1.01 for name, value in execute(self, feed).items()}

    monkeypatch.setattr(OpenVinoRunner, "_execute", wrong)
    (check,) = check_backend(exported_bundle, "openvino", variant="fp32")
    assert not check.ok
    assert "allowed are {'max_abs': 0.0001, 'cosine': 0.99999}" in check.detail


def test_a_wrong_image_of_a_batch_is_found(exported_bundle, monkeypatch):
    """The largest batch is run too: an error in its last image alone shows."""
    execute = OpenVinoRunner._execute

    def wrong(self, feed):
        results = execute(self, feed)
        for value in results.values():
            value[1:] = value[:1]
        return results

    monkeypatch.setattr(OpenVinoRunner, "_execute", wrong)
    (check,) = check_backend(exported_bundle, "openvino", variant="fp32")
    assert not check.ok


def test_a_backend_that_cannot_run_here_is_a_failure(exported_bundle):
    """The reason is in the check; where there is a GPU, it runs bf16 and the check passes."""
    (check,) = check_backend(exported_bundle, "cuda", variant="bf16")
    assert check.ok is (CUDA.find_obstacle() is None)
    if not check.ok:
        assert "it can run nothing here: cuda: no NVIDIA driver is installed" in check.detail


def test_unknown_backend(exported_bundle):
    """As everywhere, with the known ones."""
    with pytest.raises(BackendError, match="unknown backend 'gpu'; choose one of auto, cuda"):
        check_backend(exported_bundle, "gpu")
