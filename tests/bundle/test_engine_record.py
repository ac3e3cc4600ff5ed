"""The record of an engine, and engines in the manifest."""

from __future__ import annotations

import json

import pytest
from bundle.samples import ORIN, SHA256, make_engine, make_manifest, make_variant, write_bundle

from pargo_export.bundle import BatchProfile, Bundle, FileRecord, Manifest, PluginRequirement, sha256_bytes
from pargo_export.errors import BundleError, ConfigError

GRAPH = FileRecord(sha256=SHA256, size_bytes=3, stage="graph")
BUILT = FileRecord(sha256=SHA256, size_bytes=7, stage="engine")
FILES = {"onnx/fp32.onnx": GRAPH, "engines/fp32-sm87.engine": BUILT, "engines/fp32-sm87.json": BUILT}


def _manifest(engine=None, files=FILES, **changes):
    engine = engine or make_engine()
    values = {"variants": {"fp32": make_variant()}, "engines": {engine.name: engine}} | changes
    return make_manifest(files, **values)


def _parse(manifest, **changes):
    values = json.loads(manifest.to_json()) | changes
    return Manifest.from_json(json.dumps(values).encode(), source="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute_capabilities": ("sm87",)}, "compute_capabilities"),
        ({"tensorrt_version": "ten"}, "tensorrt_version"),
        ({"profiles": ()}, "profiles"),
        ({"flavor": "openvino"}, "flavor"),
        ({"file": "../evil.engine"}, "may leave the bundle"),
        ({"name": "../evil"}, "name"),
    ],
)
def test_what_is_no_engine(changes, message):
    """A field that means nothing is refused by name."""
    values = make_engine().model_dump() | changes
    with pytest.raises((ConfigError, BundleError), match=message):
        type(make_engine()).parse(values, source="test")


def test_batches_ascend():
    """A profile whose sizes do not ascend is refused."""
    with pytest.raises(ConfigError, match="4, 2, 8 are not in ascending order"):
        BatchProfile.parse({"min_batch": 4, "opt_batch": 2, "max_batch": 8}, source="test")


def test_a_plugin_library_has_a_file_and_a_package_none():
    """A requirement that could not be found later is refused."""
    with pytest.raises(ConfigError, match="a library has one, a package none"):
        PluginRequirement.parse({"operators": ["a"], "kind": "library", "sha256": SHA256}, source="test")


def test_largest_batch_and_files():
    """The largest batch is that of all profiles; a plugin library is a file of the engine."""
    profiles = (
        BatchProfile(min_batch=1, opt_batch=1, max_batch=1),
        BatchProfile(min_batch=2, opt_batch=8, max_batch=8),
    )
    plugin = PluginRequirement(operators=("a",), kind="library", file="engines/p.so", sha256=SHA256)
    engine = make_engine(profiles=profiles, plugins=(plugin,))
    assert engine.max_batch == 8
    assert engine.files == ("engines/fp32-sm87.engine", "engines/fp32-sm87.json", "engines/p.so")


@pytest.mark.parametrize(
    ("engine", "files", "message"),
    [
        (make_engine("other"), None, "needs engines/other.engine, engines/other.json"),
        (make_engine(variant="gone"), None, "is of variant 'gone', which does not exist"),
        (make_engine(engine_sha256=SHA256[::-1]), None, "'fp32-sm87' has sha256 fedc.*, its file 0123"),
        (make_engine(size_bytes=8), None, "'fp32-sm87' has 8 bytes, its file 7"),
    ],
)
def test_engines_and_files_agree(engine, files, message):
    """An engine in the manifest has its variant and its files, which are the ones that it describes."""
    with pytest.raises(ValueError, match=message):
        _manifest(engine, files or FILES)


def test_a_name_that_is_not_its_own():
    """The name in the manifest is the name in the record."""
    with pytest.raises(ValueError, match="engine 'a' calls itself 'fp32-sm87'"):
        _manifest(engines={"a": make_engine()})


def test_schema_1_1_is_read_and_becomes_todays():
    """A bundle from before engines opens, and gets the new version when it is written again."""
    values = json.loads(make_manifest({"onnx/fp32.onnx": GRAPH}, variants={"fp32": make_variant()}).to_json())
    del values["engines"]
    old = Manifest.from_json(json.dumps(values | {"schema_version": "1.1"}).encode(), source="test")
    assert old.engines == {}
    assert old.merged().schema_version == "1.3"


def test_round_trip_with_fields_of_a_later_version():
    """A manifest of schema 1.4 keeps what this version does not know, in engines too."""
    engine = make_engine().model_dump(mode="json") | {"of_tomorrow": 1}
    engine["device"]["dla_cores"] = 2
    found = _parse(_manifest(), schema_version="1.4", engines={"fp32-sm87": engine})
    again = json.loads(found.merged(tools={"tensorrt": "10.3.0"}).to_json())
    assert again["schema_version"] == "1.4"
    assert again["engines"]["fp32-sm87"]["of_tomorrow"] == 1
    assert again["engines"]["fp32-sm87"]["device"] == ORIN.model_dump() | {"dla_cores": 2}


def test_an_engine_whose_variant_is_replaced_stays():
    """It is stale then, which its hash of the graph tells; it is not lost."""
    manifest = _manifest(make_engine(graph_sha256=_manifest().graph_sha256("onnx/fp32.onnx")))
    other = FileRecord(sha256=SHA256[::-1], size_bytes=3, stage="graph")
    changed = manifest.merged(variants=[make_variant(opset=21)], files={"onnx/fp32.onnx": other})
    engine = changed.engines["fp32-sm87"]
    assert engine.graph_sha256 == manifest.graph_sha256("onnx/fp32.onnx")
    assert engine.graph_sha256 != changed.graph_sha256("onnx/fp32.onnx")


def test_the_hash_of_a_graph_covers_its_weights():
    """The graph alone may stay the same when the weights beside it change."""
    files = FILES | {"onnx/fp32.onnx.data": GRAPH}
    changed = FILES | {"onnx/fp32.onnx.data": GRAPH.model_copy(update={"sha256": SHA256[::-1]})}
    hashes = {_manifest(files=item).graph_sha256("onnx/fp32.onnx") for item in (FILES, files, changed)}
    assert len(hashes) == 3


def test_without_its_file_an_engine_is_dropped():
    """Removing the file removes the record; other engines stay."""
    names = ("fp32-sm87", "b")
    files = FILES | {f"engines/{name}.{end}": BUILT for name in names for end in ("engine", "json")}
    manifest = _manifest(files=files, engines={name: make_engine(name) for name in names})
    left = manifest.merged(without=["engines/b.engine", "engines/b.json"])
    assert set(left.engines) == {"fp32-sm87"}
    assert "engines/b.engine" not in left.files


def test_an_engine_in_a_bundle_on_disk(tmp_path):
    """A changed byte of an engine, which is code, is found by its hash."""
    content = b"engine!"
    engine = make_engine(engine_sha256=sha256_bytes(content))
    contents = {"onnx/fp32.onnx": b"abc", engine.file: content, engine.sidecar: b"{}"}
    write_bundle(tmp_path / "b", contents, variants={"fp32": make_variant()}, engines={engine.name: engine})
    (tmp_path / "b" / engine.file).write_bytes(b"Engine!")
    with pytest.raises(BundleError, match="sha256"):
        Bundle.open(tmp_path / "b").check(engine.file)
