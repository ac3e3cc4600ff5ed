"""What is said about a variant that another device will build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pargo_export.bundle import Bundle
from pargo_export.deploy import prepare
from pargo_export.deploy.prepare import probe_variant
from pargo_export.errors import IntegrityError, MissingDependencyError
from pargo_export.quantization.quantize import quantize
from pargo_export.trt import find_obstacle

needs_rtx = pytest.mark.skipif(find_obstacle("rtx") is not None, reason="TensorRT for RTX is not installed")


@needs_rtx
def test_another_parser_takes_it(calibrated):
    """TensorRT for RTX parses it, and the result says that the device decides for itself."""
    found = probe_variant(Bundle.open(calibrated), "bf16", "thor")
    assert found.detail.startswith("parsed by TensorRT for RTX 1.")
    assert found.detail.endswith(" layers")
    assert "that of the device is another one and decides for itself" in found.notes[-1]


@needs_rtx
def test_another_parser_refuses_it(bundle):
    """Unsigned activations, which no TensorRT takes: a strong sign, and no more."""
    quantize(bundle, precision="int8", allow_below=True, threads=1)
    found = probe_variant(Bundle.open(bundle), "int8-cpu", "thor")
    assert found.detail.startswith("not parsed by TensorRT for RTX")
    assert "the device will most likely refuse the graph" in found.notes[-1]


def test_without_a_parser_it_is_said(calibrated, monkeypatch):
    """Nothing is claimed; how to get one is."""

    def refuse(flavor):
        raise MissingDependencyError(f"{flavor} is not installed")

    monkeypatch.setattr(prepare, "load_tensorrt", refuse)
    found = probe_variant(Bundle.open(calibrated), "bf16", "orin")
    assert found.detail == "its files are whole"
    assert "pip install 'pargo-export[rtx]'" in found.notes[-1]


@pytest.mark.parametrize(("target", "version"), [("orin", "10.3"), ("thor", "10.13")])
def test_an_operator_that_the_device_may_lack(bundle, add_variants, target, version):
    """The oldest JetPack of each Jetson does not know the operator Attention."""
    add_variants(bundle, op={"attention": "attention_op"})
    note = probe_variant(Bundle.open(bundle), "op", target).notes[0]
    assert note.startswith(f"TensorRT {version} (JetPack ")
    assert "is not expected to take attention 'attention_op'" in note
    assert "not expected" not in " ".join(probe_variant(Bundle.open(bundle), "op", "cuda").notes)


def test_a_damaged_graph_is_not_prepared(calibrated, tmp_path):
    """Its hash is compared first."""
    path = Path(shutil.copytree(calibrated, tmp_path / "damaged"))
    opened = Bundle.open(path)
    graph = path / opened.variant("bf16").graph
    graph.write_bytes(bytes(graph.stat().st_size))
    with pytest.raises(IntegrityError, match="has sha256"):
        probe_variant(opened, "bf16", "orin")
