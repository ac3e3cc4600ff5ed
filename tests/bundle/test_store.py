from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from bundle.samples import make_manifest, make_variant, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pargo_export.bundle import Bundle, FileCheck
from pargo_export.errors import BundleError, IntegrityError


def test_opens_what_was_written(bundle):
    """An opened bundle has its manifest, its path and nothing but its files on disk."""
    assert bundle.manifest.variants == {"fp32": make_variant()}
    assert Bundle.exists(bundle.path)
    found = {str(path.relative_to(bundle.path)) for path in bundle.path.rglob("*") if path.is_file()}
    assert found == {*bundle.manifest.files, "manifest.json"}
    assert not (bundle.path / ".transaction").exists()
    assert repr(bundle) == f"Bundle({str(bundle.path)!r}, variants=['fp32'])"


def test_opens_by_string_and_relative_path(bundle, monkeypatch):
    """A string and a path relative to the working directory do as well."""
    monkeypatch.chdir(bundle.path.parent)
    assert Bundle.open("bundle").manifest == bundle.manifest
    assert Bundle.exists("bundle")


def test_survives_being_moved(bundle, tmp_path):
    """A bundle copied elsewhere is the same bundle."""
    shutil.copytree(bundle.path, tmp_path / "copy")
    assert all(check.ok for check in Bundle.open(tmp_path / "copy").verify())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "is a file, not a directory"),
        (lambda path: path.mkdir(), r"it has no manifest\.json"),
        (lambda path: (path / "manifest.json").mkdir(parents=True), "cannot be read"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (lambda path: path.symlink_to(path), "does not exist"),
    ],
)
def test_says_why_there_is_no_bundle(make, message, tmp_path):
    """Every way of not being a bundle gets its own message, which names the path."""
    path = tmp_path / "x"
    make(path)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert str(path) in str(caught.value)


def test_exists_is_about_the_manifest(tmp_path):
    """A missing path, a file and a plain directory are no bundles."""
    (tmp_path / "file").write_bytes(b"")
    assert not any(Bundle.exists(path) for path in (tmp_path, tmp_path / "file", tmp_path / "missing"))


def test_refuses_a_truncated_manifest(bundle):
    """A manifest cut short is refused with its path and the mend."""
    path = bundle.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BundleError, match=r"manifest\.json is not valid JSON.*copy the bundle again"):
        Bundle.open(bundle.path)


def test_refuses_a_manifest_outside(bundle, tmp_path):
    """A manifest that is a link out of the bundle is refused."""
    (bundle.path / "manifest.json").rename(tmp_path / "outside.json")
    (bundle.path / "manifest.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(BundleError, match="symbolic link leads out"):
        Bundle.open(bundle.path)


def test_refuses_files_outside(bundle):
    """A manifest that lists a path outside the bundle is refused at open."""
    path = bundle.path / "manifest.json"
    values = json.loads(path.read_bytes())
    values["files"]["../outside"] = values["files"]["onnx/fp32.onnx"]
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"'\.\./outside' is refused"):
        Bundle.open(bundle.path)


def test_refuses_a_listed_link_outside(bundle, tmp_path):
    """A listed file that is a link out of the bundle is refused at open, even with the right content."""
    path = bundle.path / "onnx/fp32.onnx"
    path.rename(tmp_path / "graph")
    path.symlink_to(tmp_path / "graph")
    with pytest.raises(BundleError, match="symbolic link leads out"):
        Bundle.open(bundle.path)
    assert [check.path for check in bundle.verify() if not check.ok] == ["onnx/fp32.onnx"]


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "onnx/fp32.onnx.data is missing"),
        (lambda path: shutil.rmtree(path.parent), "onnx/fp32.onnx is missing"),
        (lambda path: os.truncate(path, 10), "onnx/fp32.onnx.data has 10 bytes, expected 7000"),
        (_as_directory, "onnx/fp32.onnx.data is not a file"),
    ],
)
def test_refuses_a_missing_or_truncated_file(damage, message, bundle):
    """A file that is missing or has another size is found at open, and the message says which stage mends it."""
    damage(bundle.path / "onnx/fp32.onnx.data")
    with pytest.raises(IntegrityError, match=f"{message}.*repeat the stage 'graph'"):
        Bundle.open(bundle.path)


def test_verify_finds_every_damage(bundle):
    """Verify hashes every file and returns a finding for each, in order, without raising."""
    content = bytearray((bundle.path / "onnx/fp32.onnx.data").read_bytes())
    content[3000] ^= 1
    (bundle.path / "onnx/fp32.onnx.data").write_bytes(content)
    (bundle.path / "reports/parity.json").unlink()
    good, changed, missing = bundle.verify()
    assert good == FileCheck("onnx/fp32.onnx", ok=True)
    assert (changed.path, changed.ok) == ("onnx/fp32.onnx.data", False)
    assert "sha256" in changed.reason
    assert (missing.path, missing.ok) == ("reports/parity.json", False)
    assert "is missing" in missing.reason


def test_check_hashes_one_file(bundle):
    """Check returns the path of an intact file and raises for a changed one of the same size."""
    path = bundle.check("onnx/fp32.onnx")
    assert path.read_bytes() == b"graph"
    path.write_bytes(b"grapH")
    with pytest.raises(IntegrityError, match=r"has sha256 .* expected"):
        bundle.check("onnx/fp32.onnx")


def test_check_refuses_what_is_not_listed(bundle):
    """A file that the manifest does not list has no hash to compare with, and the message lists what has."""
    (bundle.path / "extra").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"does not list 'extra'; it lists onnx/fp32\.onnx, "):
        bundle.check("extra")


def test_variant_by_name_or_alone(bundle):
    """The only variant needs no name; a wrong name lists the valid ones."""
    assert bundle.variant() == bundle.variant("fp32")
    with pytest.raises(BundleError, match="no variant 'fp16'; choose one of fp32"):
        bundle.variant("fp16")


def test_variant_must_be_named_among_several(tmp_path):
    """With several variants the choice is the caller's."""
    variants = {"int8": make_variant("int8"), "fp16": make_variant("fp16")}
    write_bundle(tmp_path / "b", {"onnx/int8.onnx": b"", "onnx/fp16.onnx": b""}, variants=variants)
    with pytest.raises(BundleError, match="a variant must be named; choose one of fp16, int8"):
        Bundle.open(tmp_path / "b").variant()


def test_bundle_without_variants(tmp_path):
    """A bundle can be empty; asking it for a variant says so."""
    write_bundle(tmp_path / "b", {})
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.verify() == ()
    with pytest.raises(BundleError, match="it has no variants"):
        bundle.variant()


def test_file_joins_safely(bundle):
    """A path in the bundle need not exist, but may not leave it."""
    assert bundle.file("engines/new.engine") == bundle.path / "engines/new.engine"
    with pytest.raises(BundleError, match="is refused"):
        bundle.file("../x")


def test_ignores_files_that_are_not_listed(bundle):
    """Files that somebody put beside the bundle's do not disturb it."""
    (bundle.path / "notes.txt").write_text("mine")
    assert all(check.ok for check in Bundle.open(bundle.path).verify())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_manifests_never_crash(bundle, data):
    """Whatever bytes are changed in the manifest: it opens, or raises a BundleError."""
    text = make_manifest(bundle.manifest.files, variants=bundle.manifest.variants).to_json()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 40))
    (bundle.path / "manifest.json").write_bytes(
        text[:start] + data.draw(st.binary(max_size=40)) + text[start + length :]
    )
    with contextlib.suppress(BundleError):
        Bundle.open(bundle.path)
