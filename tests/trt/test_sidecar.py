"""The record beside an engine: written, read, compared with the manifest, replaced."""

from __future__ import annotations

import json

import pytest
from bundle.samples import make_engine, make_manifest, make_variant

from pargo_export.bundle import Bundle, BundleTransaction, Engine, EngineTiming, sha256_bytes
from pargo_export.errors import BundleError, IntegrityError
from pargo_export.trt.sidecar import check_sidecar, read_sidecar, sidecar_bytes, stage_sidecar, store_record

CONTENT = b"engine!"
TIMING = EngineTiming(batch=1, median_ms=1.25, num_runs=10)


@pytest.fixture
def path(tmp_path):
    """Return a bundle with one engine and its sidecar."""
    engine = make_engine(engine_sha256=sha256_bytes(CONTENT), size_bytes=len(CONTENT))
    with BundleTransaction(tmp_path / "bundle") as transaction:
        transaction.stage("onnx/fp32.onnx").write_bytes(b"graph")
        transaction.stage(engine.file).write_bytes(CONTENT)
        files = {
            "onnx/fp32.onnx": transaction.record("onnx/fp32.onnx", stage="graph"),
            engine.file: transaction.record(engine.file, stage="engine"),
            engine.sidecar: stage_sidecar(transaction, engine),
        }
        manifest = make_manifest(files, variants={"fp32": make_variant()}, engines={engine.name: engine})
        transaction.commit(manifest)
    return tmp_path / "bundle"


def test_round_trip_keeps_unknown_fields():
    """What a later version adds is still there when the record is written again."""
    engine = Engine.model_validate(make_engine().model_dump() | {"of_tomorrow": {"a": [1]}})
    found = read_sidecar(sidecar_bytes(engine), source="test")
    assert found == engine
    assert found.model_dump()["of_tomorrow"] == {"a": [1]}


def test_sidecar_and_manifest_agree(path):
    """A sidecar that was written with its record passes."""
    bundle = Bundle.open(path)
    check_sidecar(bundle, bundle.manifest.engines["fp32-sm87"])
    assert bundle.manifest.files["engines/fp32-sm87.json"].parents == ("engines/fp32-sm87.engine",)


def test_disagreement_names_the_fields(path):
    """A record in the manifest that is not the one beside the engine is an error that says where."""
    bundle = Bundle.open(path)
    changed = bundle.manifest.engines["fp32-sm87"].model_copy(
        update={"timing": TIMING, "tensorrt_version": "10.4.0"}
    )
    with pytest.raises(IntegrityError, match="disagree about tensorrt_version, timing"):
        check_sidecar(bundle, changed)


def test_a_changed_sidecar_is_refused(path):
    """The file is hashed before it is read."""
    sidecar = path / "engines/fp32-sm87.json"
    sidecar.write_bytes(sidecar.read_bytes().replace(b"8.7", b"8.9"))
    bundle = Bundle.open(path)
    with pytest.raises(IntegrityError, match="sha256"):
        check_sidecar(bundle, bundle.manifest.engines["fp32-sm87"])


def test_store_record(path):
    """Evidence or a timing comes into manifest and sidecar in one step; the engine stays."""
    engine = Bundle.open(path).manifest.engines["fp32-sm87"].model_copy(update={"timing": TIMING})
    store_record(path, engine)
    bundle = Bundle.open(path)
    assert bundle.manifest.engines["fp32-sm87"].timing == TIMING
    check_sidecar(bundle, engine)
    assert bundle.check("engines/fp32-sm87.engine").read_bytes() == CONTENT


def test_a_measurement_of_another_engine_is_not_stored(path):
    """What was measured on an engine that has been replaced since is refused, and changes nothing."""
    engine = Bundle.open(path).manifest.engines["fp32-sm87"]
    with pytest.raises(BundleError, match="was built again meanwhile"):
        store_record(
            path, engine.model_copy(update={"engine_sha256": sha256_bytes(b"other"), "timing": TIMING})
        )
    with pytest.raises(BundleError, match="has no engine 'none'"):
        store_record(path, engine.model_copy(update={"name": "none"}))
    assert Bundle.open(path).manifest.engines == {"fp32-sm87": engine}


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "not valid JSON"), (b"[]", "not the sidecar"), (b'{"engine": {}}', "flavor: Field required")],
)
def test_what_is_no_sidecar(text, message):
    """Damaged and foreign files are refused by name."""
    with pytest.raises(BundleError, match=message) as caught:
        read_sidecar(text, source="x.json")
    assert "x.json" in str(caught.value)


def test_numbers_are_finite():
    """A time that is not a number is not written: JSON has none."""
    with pytest.raises(BundleError, match="must be finite"):
        sidecar_bytes(make_engine(build_seconds=float("nan")))


def test_text_is_canonical():
    """The same record gives the same bytes, sorted and readable."""
    text = sidecar_bytes(make_engine())
    assert text == sidecar_bytes(make_engine())
    assert list(json.loads(text)["engine"]) == sorted(json.loads(text)["engine"])
