"""What `verify` finds in bundles that were tampered with."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest
from golden_cases import golden_case
from onnx import numpy_helper

from pargo_export import verify

GRAPH = "onnx/fp32.onnx"


def _failures(bundle, *arguments, **options):
    return {check.name: check.detail for check in verify(bundle, *arguments, **options).failures}


def _edit_manifest(bundle, change):
    path = bundle / "manifest.json"
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def _replace_graph(bundle, change, *, relative=GRAPH):
    """Change a graph and make the manifest agree with the new file."""
    path = bundle / relative
    model = onnx.load(path, load_external_data=False)
    change(model)
    onnx.save(model, path)
    _record(bundle, relative)


def _record(bundle, relative):
    content = (bundle / relative).read_bytes()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    _edit_manifest(bundle, lambda values: values["files"][relative].update(record))


def _scale_a_weight(model):
    weight = next(item for item in model.graph.initializer if len(item.dims) == 2)
    array = numpy_helper.to_array(weight) * np.float32(1.05)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def test_a_flipped_byte_is_found(bundle_to_edit):
    """One changed byte of a graph fails the hash, and other files still pass."""
    path = bundle_to_edit / GRAPH
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    failures = _failures(bundle_to_edit)
    assert "sha256" in failures[GRAPH]
    assert not any(name.startswith(("bf16", "onnx/bf16")) for name in failures)


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000])
def test_a_graph_cut_short_is_found(bundle_to_edit, size):
    """A truncated graph is reported, whatever onnx and ONNX Runtime make of it."""
    path = bundle_to_edit / GRAPH
    path.write_bytes(path.read_bytes()[:size])
    failures = _failures(bundle_to_edit)
    assert GRAPH in failures
    assert any(name.startswith("fp32: ") for name in failures)


def test_a_changed_weight_is_found(bundle_to_edit):
    """A graph with another weight, and a manifest that agrees with it, fails only against the checkpoint."""
    _replace_graph(bundle_to_edit, _scale_a_weight)
    assert verify(bundle_to_edit).passed
    case = golden_case("pargo_w2")
    failures = _failures(bundle_to_edit, case.checkpoint, config=case.config)
    assert set(failures) == {"fp32: parity"}
    assert "visual_tokens" in failures["fp32: parity"]


def test_a_missing_data_file_is_found(bundle_to_edit):
    """Without its weights a graph fails the checks that need them; the others are still made."""
    (bundle_to_edit / "onnx/external.onnx.data").unlink()
    failures = _failures(bundle_to_edit)
    assert set(failures) >= {"onnx/external.onnx.data", "external: external data", "external: run"}
    assert "missing" in failures["external: external data"]
    assert not any(name.startswith("fp32") for name in failures)


def test_a_missing_graph_is_found(bundle_to_edit):
    """Without its graph a variant fails, and the others pass."""
    (bundle_to_edit / GRAPH).unlink()
    assert set(_failures(bundle_to_edit)) == {GRAPH, "fp32: graph"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "pixels"), ("dtype", "uint8"), ("shape", ["batch", 3, 84, 98]), ("shape", [1, 3, 84, 84])],
)
def test_an_edited_signature_is_found(bundle_to_edit, field, value):
    """The manifest must name the inputs of the graph, with dtype and axes."""

    def change(values):
        values["variants"]["fp32"]["signature"]["inputs"][0][field] = value

    _edit_manifest(bundle_to_edit, change)
    failures = _failures(bundle_to_edit)
    assert "pixel_values float32[batch, 3, 84, 84]" in failures["fp32: signature"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("opset", 21), ("attention", "dense"), ("precision", "float16"), ("target", "orin"), ("rewrites", [])],
)
def test_edited_metadata_is_found(bundle_to_edit, field, value):
    """The manifest must describe the graph as the graph describes itself."""
    _edit_manifest(bundle_to_edit, lambda values: values["variants"]["fp32"].update({field: value}))
    assert field in _failures(bundle_to_edit)["fp32: metadata"]


def test_another_model_in_the_manifest_is_found(bundle_to_edit):
    """The configuration in the graph must be the one of the manifest."""
    _edit_manifest(bundle_to_edit, lambda values: values["model"]["vision"].update(rope_theta=500.0))
    failures = _failures(bundle_to_edit)
    assert "pargo.config" in failures["fp32: metadata"]


def test_failed_evidence_is_found(bundle_to_edit):
    """A variant whose recorded parity failed, or was never measured, does not pass."""

    def change(values):
        values["variants"]["fp32"]["evidence"]["passed"] = False
        values["variants"]["bf16"]["evidence"] = None

    _edit_manifest(bundle_to_edit, change)
    assert set(_failures(bundle_to_edit)) == {"fp32: recorded parity", "bf16: recorded parity"}


def test_output_that_is_not_finite_is_found(bundle_to_edit):
    """A graph that gives NaN is valid ONNX, but fails its run."""

    def poison(model):
        weight = next(item for item in model.graph.initializer if len(item.dims) == 2)
        array = numpy_helper.to_array(weight).copy()
        array[:] = np.nan
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))

    _replace_graph(bundle_to_edit, poison)
    failures = _failures(bundle_to_edit)
    assert set(failures) == {"fp32: run"}
    assert "NaN or infinite" in failures["fp32: run"]


def test_invalid_onnx_is_found(bundle_to_edit):
    """A graph that the ONNX checker refuses fails, whatever its hash."""
    _replace_graph(bundle_to_edit, lambda model: model.graph.node[3].ClearField("op_type"))
    assert {"fp32: ONNX checker", "fp32: run"} <= set(_failures(bundle_to_edit))


def test_weights_outside_the_bundle_are_refused(bundle_to_edit):
    """A graph that takes its weights from a file that the manifest does not list fails."""
    secret = bundle_to_edit.parent / "other.data"
    secret.write_bytes((bundle_to_edit / "onnx/external.onnx.data").read_bytes())

    def redirect(model):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../../other.data"

    _replace_graph(bundle_to_edit, redirect, relative="onnx/external.onnx")
    assert "does not list" in _failures(bundle_to_edit)["external: external data"]
