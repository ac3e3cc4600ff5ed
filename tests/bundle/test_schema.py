from __future__ import annotations

import json
import math

import pytest
from bundle.samples import SHA256, make_calibration, make_engine, make_manifest, make_variant

from pargo_export import errors
from pargo_export._version import __version__
from pargo_export.bundle import (
    SCHEMA_VERSION,
    EngineTiming,
    Evidence,
    FileRecord,
    Limits,
    Manifest,
    PluginRequirement,
    Quantization,
    StageEvidence,
)

RECORD = FileRecord(sha256=SHA256, size_bytes=3, stage="graph", parents=(f"checkpoint:{SHA256}",))
FILES = {"onnx/fp32.onnx": RECORD}
CALIBRATION = make_calibration()
CALIBRATED = FILES | {"onnx/int8.onnx": RECORD} | dict.fromkeys(CALIBRATION.files, RECORD)
INT8 = make_variant(
    "int8",
    precision="int8",
    quantization=Quantization(
        base="fp32",
        float_precision="float16",
        recipe="int8",
        dialect="cpu",
        calibration="default",
        quantized=("tower.blocks.0.mlp.down",),
        kept={"tower.patch_embedding": "it reads pixels"},
        smoothed=("tower.blocks.0.mlp.down",),
    ),
)

ENGINE = make_engine(
    size_bytes=RECORD.size_bytes,
    plugins=(PluginRequirement(operators=("a",), kind="library", file="engines/a.so", sha256=SHA256),),
    evidence=make_variant().evidence,
    timing=EngineTiming(batch=1, median_ms=1.5, num_runs=10),
    settings={"profiling": True},
)


def full_manifest() -> Manifest:
    """Return a manifest with every kind of record."""
    variants = {"fp32": make_variant(), "int8": INT8}
    files = CALIBRATED | dict.fromkeys(ENGINE.files, RECORD)
    return make_manifest(
        files, variants=variants, calibrations={"default": CALIBRATION}, engines={ENGINE.name: ENGINE}
    )


def records_of(value, path=()):
    """Every JSON object with the keys that lead to it."""
    if isinstance(value, dict):
        yield path, value
        for key, item in value.items():
            yield from records_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from records_of(item, (*path, index))


def test_json_round_trip_is_exact():
    """Writing, reading and writing again gives the same manifest and the same bytes."""
    manifest = full_manifest()
    text = manifest.to_json()
    again = Manifest.from_json(text, source="test")
    assert again == manifest
    assert again.to_json() == text


def test_json_is_deterministic():
    """Keys are sorted, whatever order they were made in, and the file ends with a newline."""
    forwards = make_manifest(FILES | {"a": RECORD}, tools={"torch": "2", "onnx": "1"})
    backwards = make_manifest({"a": RECORD} | FILES, tools={"onnx": "1", "torch": "2"})
    assert forwards.to_json() == backwards.to_json()
    assert forwards.to_json().endswith(b"}\n")
    values = json.loads(forwards.to_json())
    assert forwards.to_json().decode() == json.dumps(values, indent=2, sort_keys=True) + "\n"


def test_unknown_fields_survive_at_every_level():
    """A field of a later minor version is kept in every record of the manifest."""
    values = json.loads(full_manifest().to_json())
    open_dicts = {("files",), ("variants",), ("calibrations",), ("tools",), ("source", "ignored")}
    open_dicts.add(("variants", "int8", "quantization", "kept"))
    built = ("engines", ENGINE.name)
    open_dicts |= {
        ("engines",),
        (*built, "settings"),
        *((*built, "built_as_asked", name) for name in ("linears", "flops")),
    }
    marked = 0
    for path, record in list(records_of(values)):
        if path not in open_dicts:
            record["later_field"] = {"nested": [1, None, "é"]}
            marked += 1
    text = json.dumps(values).encode()
    assert marked >= 35
    assert json.loads(Manifest.from_json(text, source="test").to_json()) == values
    assert json.loads(Manifest.from_json(text, source="test").merged().to_json()) == values


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.99"])
def test_same_major_is_read(version):
    """Any minor version of this major is read and kept."""
    values = json.loads(full_manifest().to_json()) | {"schema_version": version}
    assert Manifest.from_json(json.dumps(values).encode(), source="test").schema_version == version


@pytest.mark.parametrize("version", ["0.9", "2.0", "11.0"])
def test_other_major_is_refused_before_anything_else(version):
    """Another major is refused, naming its writer and the way out, even if nothing else can be read."""
    text = json.dumps({"schema_version": version, "written_by": "7.8.9", "model": "otherwise"}).encode()
    with pytest.raises(errors.BundleError) as caught:
        Manifest.from_json(text, source="bundle/manifest.json")
    for part in ("bundle/manifest.json", version, "7.8.9", __version__, "install the version that wrote it"):
        assert part in str(caught.value)


@pytest.mark.parametrize("version", ["1", "one.two", "", None, 1, "1.x"])
def test_malformed_version_is_refused(version):
    """A version that is not MAJOR.MINOR is refused."""
    values = json.loads(full_manifest().to_json()) | {"schema_version": version}
    with pytest.raises(errors.BundleError, match=r"MAJOR\.MINOR"):
        Manifest.from_json(json.dumps(values).encode(), source="test")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b'{"a": NaN}', b'{"a": 1} x'])
def test_broken_json_is_refused(text):
    """Text that is not JSON is refused with the way to mend it."""
    with pytest.raises(errors.BundleError, match=r"not valid JSON.*copy the bundle again"):
        Manifest.from_json(text, source="test")


@pytest.mark.parametrize("text", [b"[]", b"null", b"1", b"{}"])
def test_other_json_is_refused(text):
    """JSON that is no manifest is refused."""
    with pytest.raises(errors.BundleError, match="no schema_version"):
        Manifest.from_json(text, source="test")


def test_every_truncation_is_refused():
    """A manifest cut short anywhere is refused."""
    text = full_manifest().to_json().rstrip()
    for size in range(0, len(text), 7):
        with pytest.raises(errors.BundleError):
            Manifest.from_json(text[:size], source="test")


def test_wrong_field_is_named():
    """A wrong field is named with the path that leads to it."""
    values = json.loads(full_manifest().to_json())
    values["variants"]["fp32"]["max_batch"] = 0
    with pytest.raises(errors.BundleError, match=r"test: variants\.fp32\.max_batch"):
        Manifest.from_json(json.dumps(values).encode(), source="test")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a\\b", "", "a\0b", "manifest.json"])
def test_escaping_paths_are_refused(path):
    """A path that leaves the bundle is refused as a file, as a graph and as a parent."""
    with pytest.raises(errors.BundleError, match="is refused"):
        make_manifest({path: RECORD})
    with pytest.raises(errors.BundleError, match="is refused"):
        make_variant(graph=path)
    with pytest.raises(errors.BundleError, match="is refused"):
        FileRecord(sha256=SHA256, size_bytes=0, stage="graph", parents=(path,))
    values = json.loads(full_manifest().to_json())
    values["files"][path] = values["files"]["onnx/fp32.onnx"]
    with pytest.raises(errors.BundleError, match=r"bundle/manifest\.json: .*is refused"):
        Manifest.from_json(json.dumps(values).encode(), source="bundle/manifest.json")


@pytest.mark.parametrize("parent", ["checkpoint:", "checkpoint:abc", f"checkpoint:{SHA256.upper()}"])
def test_malformed_checkpoint_parents_are_refused(parent):
    """A checkpoint parent carries a whole lower-case hash."""
    with pytest.raises(ValueError, match="64 lower-case hexadecimal"):
        FileRecord(sha256=SHA256, size_bytes=0, stage="graph", parents=(parent,))


@pytest.mark.parametrize("digest", ["", "abc", SHA256.upper(), SHA256 + "\n", SHA256 + "0"])
def test_malformed_hashes_are_refused(digest):
    """A hash is 64 lower-case hexadecimal digits and nothing more."""
    with pytest.raises(ValueError, match="sha256"):
        FileRecord(sha256=digest, size_bytes=0, stage="graph")


def test_variant_must_agree_with_its_key_and_its_graph():
    """A variant under another name, or without its graph in the bundle, is refused."""
    with pytest.raises(ValueError, match="calls itself 'fp32'"):
        make_manifest(FILES, variants={"fp16": make_variant()})
    with pytest.raises(ValueError, match=r"needs 'onnx/fp32\.onnx'"):
        make_manifest({}, variants={"fp32": make_variant()})


def test_later_precisions_are_kept():
    """A precision that this version does not know is kept, so that the other variants stay usable."""
    assert make_variant(precision="fp6").precision == "fp6"
    with pytest.raises(ValueError, match="precision"):
        make_variant(precision="FP 16")


def test_evidence_that_is_not_finite_cannot_have_passed():
    """NaN never counts as parity, and is never written."""
    values = {
        "stage": "s",
        "batch": 1,
        "source": "noise",
        "max_abs": math.nan,
        "cosine": 1.0,
        "reference_std": 1.0,
    }
    stages = (StageEvidence(**values),)
    with pytest.raises(ValueError, match="not finite"):
        Evidence(stages=stages, limits=Limits(), passed=True, reference="r")
    failed = Evidence(stages=stages, limits=Limits(), passed=False, reference="r")
    manifest = make_manifest(FILES, variants={"fp32": make_variant(evidence=failed)})
    with pytest.raises(errors.BundleError, match="must be finite"):
        manifest.to_json()


def test_merged_adds_replaces_and_drops():
    """Later stages add to a manifest without losing what is there."""
    manifest = make_manifest(FILES | {"old": RECORD}, variants={"fp32": make_variant()}, written_by="0.0.1")
    other = RECORD.model_copy(update={"size_bytes": 4})
    result = manifest.merged(
        variants=[make_variant("fp16")],
        files={"onnx/fp16.onnx": other, "onnx/fp32.onnx": other},
        tools={"onnx": "1"},
        without=["old"],
    )
    assert set(result.variants) == {"fp16", "fp32"}
    assert result.files == {"onnx/fp16.onnx": other, "onnx/fp32.onnx": other}
    assert result.tools == {"torch": "2.9.0", "onnx": "1"}
    assert result.written_by == __version__
    assert set(manifest.files) == {"onnx/fp32.onnx", "old"}


def test_merged_refuses_a_contradiction():
    """Dropping a graph that a variant needs is refused."""
    with pytest.raises(errors.ConfigError, match="needs"):
        full_manifest().merged(without=["onnx/fp32.onnx"])


@pytest.mark.parametrize("missing", CALIBRATION.files)
def test_calibration_needs_its_files(missing):
    """Table, statistics and evaluation images must be listed; the message names what is not."""
    files = {name: record for name, record in CALIBRATED.items() if name != missing}
    with pytest.raises(ValueError, match=f"calibration 'default' needs {missing}, which files does not list"):
        make_manifest(files, calibrations={"default": CALIBRATION})
    with pytest.raises(errors.ConfigError, match=f"needs {missing}"):
        full_manifest().merged(without=[missing])


def test_calibration_must_agree_with_its_key():
    """A calibration under another name is refused."""
    with pytest.raises(ValueError, match="calibration 'other' calls itself 'default'"):
        make_manifest(CALIBRATED, calibrations={"other": CALIBRATION})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../default"},
        {"table": "../table.json"},
        {"statistics": "/etc/passwd"},
        {"evaluation": "manifest.json"},
        {"num_images": 0},
        {"num_skipped": -1},
        {"shard": (0, 0)},
        {"shard": (-1, 2)},
        {"component": "decoder"},
        {"input": "int4"},
        {"graph_sha256": "abc"},
        {"weights_sha256": SHA256.upper()},
        {"dataset_sha256": ""},
    ],
)
def test_malformed_calibrations_are_refused(changes):
    """Numbers out of range, paths that leave the bundle, words and hashes that are none."""
    (field,) = changes
    with pytest.raises((ValueError, errors.BundleError), match=f"{field}|is refused"):
        make_calibration(**changes)


@pytest.mark.parametrize("changes", [{"float_precision": "int8"}, {"dialect": "openvino"}, {"base": None}])
def test_malformed_quantizations_are_refused(changes):
    """Words that are not known."""
    (field,) = changes
    with pytest.raises(ValueError, match=field):
        Quantization(**({"base": "fp32", "float_precision": "float32"} | changes))


def test_exported_variants_have_no_quantization():
    """A manifest of schema 1.0, which knows neither calibrations nor quantization, is read as one without."""
    values = json.loads(make_manifest(FILES, variants={"fp32": make_variant()}).to_json())
    del values["calibrations"], values["variants"]["fp32"]["quantization"]
    values["schema_version"] = "1.0"
    for stage in values["variants"]["fp32"]["evidence"]["stages"]:
        del stage["mean_cosine"], stage["sqnr_db"]
    old = Manifest.from_json(json.dumps(values).encode(), source="test")
    assert old.calibrations == {}
    assert old.variants["fp32"].quantization is None
    merged = old.merged(calibrations=[CALIBRATION], files=CALIBRATED)
    assert merged.schema_version == SCHEMA_VERSION
    assert merged.calibrations == {"default": CALIBRATION}


def test_merged_replaces_a_calibration_and_keeps_the_others():
    """By name, as variants are."""
    other = make_calibration("other", seed=7)
    files = dict.fromkeys(other.files, RECORD)
    result = full_manifest().merged(calibrations=[other, make_calibration(seed=9)], files=files)
    assert {name: item.seed for name, item in result.calibrations.items()} == {"default": 9, "other": 7}
