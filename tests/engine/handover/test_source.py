"""Which variant or engine is handed over, and that its files are what the manifest says."""

from __future__ import annotations

import pytest
from bundle.samples import SHA256

from pargo_export.engine.handover.source import find_source
from pargo_export.errors import BundleError, EngineError, IntegrityError


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"variant": "fp32", "engine": None}, "fp32"),
        ({"variant": None, "engine": None}, "fp32"),
        ({"variant": None, "engine": "fp32-rtx"}, "fp32-rtx"),
        ({"variant": "fp32", "engine": "fp32-sm87"}, "fp32-sm87"),
    ],
)
def test_choice(bundle, choice, name):
    """An engine by its name, else the graph of a variant, which may be the only one."""
    source = find_source(bundle, **choice)
    assert source.name == name
    assert (source.engine is None) == (choice["engine"] is None)
    assert source.graph_sha256 == source.bundle.manifest.engines["fp32-rtx"].graph_sha256


def test_only_engine(tmp_path, write):
    """The only engine of a variant need not be named; with several or none it says what to do."""
    manifest = write(tmp_path / "two")
    with pytest.raises(
        EngineError, match="2 engines, one is needed; name one with --engine: fp32-rtx, fp32-sm87"
    ):
        find_source(tmp_path / "two", variant=None, engine=None, wants_engine=True)
    one = {"fp32-sm87": manifest.engines["fp32-sm87"]}
    write(tmp_path / "one", engines=one)
    assert find_source(tmp_path / "one", variant=None, engine=None, wants_engine=True).name == "fp32-sm87"
    write(tmp_path / "none", engines={})
    with pytest.raises(EngineError, match=r"0 engines of variant 'fp32'.*pargo-export trt .* --variant fp32"):
        find_source(tmp_path / "none", variant="fp32", engine=None, wants_engine=True)


@pytest.mark.parametrize(
    ("choice", "error", "found"),
    [
        ({"variant": "fp8", "engine": None}, BundleError, "there is no variant 'fp8'"),
        (
            {"variant": None, "engine": "fp8-rtx"},
            EngineError,
            "no engine 'fp8-rtx'; it has fp32-rtx, fp32-sm87",
        ),
        ({"variant": "fp8", "engine": "fp32-rtx"}, EngineError, "is of variant 'fp32', not of 'fp8'"),
    ],
)
def test_what_is_not_there(bundle, choice, error, found):
    """A wrong name is answered with the right ones."""
    with pytest.raises(error, match=found):
        find_source(bundle, **choice)


def test_stale_engine(tmp_path, write):
    """An engine of an older graph is not handed over."""
    write(tmp_path / "bundle", engine={"graph_sha256": SHA256})
    with pytest.raises(EngineError, match=r"older graph .* build it again with `pargo-export trt"):
        find_source(tmp_path / "bundle", variant=None, engine="fp32-sm87")


@pytest.mark.parametrize("file", ["engines/fp32-sm87.engine", "onnx/fp32.onnx.data"])
def test_changed_files(bundle, tmp_path, file):
    """A file with another content is not copied: an engine is code."""
    content = bytearray((bundle / file).read_bytes())
    content[0] ^= 1
    (bundle / file).write_bytes(content)
    source = find_source(bundle, variant=None, engine="fp32-sm87")
    with pytest.raises(IntegrityError, match=file):
        source.copy_engine(tmp_path / "copy") if "engines" in file else source.copy_graph(
            tmp_path, "copy.onnx"
        )
    assert not (tmp_path / "copy").exists()


def test_graph_without_an_engine(bundle):
    """Asked for an engine, a graph says how to build one."""
    with pytest.raises(EngineError, match=r"no engine; build one with `pargo-export trt"):
        find_source(bundle, variant="fp32", engine=None).require_engine()
