from __future__ import annotations

import pytest
from bundle.samples import files_below, make_variant

from pargo_export.bundle import Bundle, BundleTransaction
from pargo_export.errors import BundleError, ConfigError, IntegrityError


def test_failed_commit_leaves_no_directories(bundle):
    """Directories made for a commit that then fails are removed."""
    (bundle.path / "engines").write_text("in the way")
    with BundleTransaction(bundle.path) as transaction:
        files = {}
        for name in ("calibration/a.json", "engines/x.engine"):
            transaction.stage(name).write_bytes(b"")
            files[name] = transaction.record(name, stage="engine")
        with pytest.raises(BundleError, match="move it away"):
            transaction.commit(transaction.previous.merged(files=files))
    assert not (bundle.path / "calibration").exists()
    assert all(check.ok for check in Bundle.open(bundle.path).verify())


@pytest.mark.parametrize(
    "relative", ["../x", "/x", "", "a\\b", "a\0b", "manifest.json", ".transaction/commit.json"]
)
def test_refuses_escaping_paths(relative, bundle):
    """What leaves the bundle can be neither staged nor recorded."""
    with BundleTransaction(bundle.path) as transaction:
        with pytest.raises(BundleError, match="is refused"):
            transaction.stage(relative)
        with pytest.raises(BundleError, match="is refused"):
            transaction.record(relative, stage="graph")


def test_refuses_a_directory_that_is_a_link_outside(bundle, tmp_path):
    """Files are not written through a link that leads out of the bundle."""
    (tmp_path / "outside").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "outside")
    with (
        BundleTransaction(bundle.path) as transaction,
        pytest.raises(BundleError, match="symbolic link leads out"),
    ):
        transaction.stage("engines/a.engine")


def test_refuses_a_work_directory_that_is_a_link(bundle, tmp_path):
    """A planted link in the place of the work directory is neither followed nor swept."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(b"")
    for target in (tmp_path / "precious", "onnx"):
        (bundle.path / ".transaction").symlink_to(target)
        with pytest.raises(BundleError, match="symbolic link"), BundleTransaction(bundle.path):
            pass
        (bundle.path / ".transaction").unlink()
    assert (tmp_path / "precious/file").exists()
    assert all(check.ok for check in bundle.verify())


@pytest.mark.parametrize("kind", ["missing", "directory", "link"])
def test_records_only_regular_files(kind, tmp_path):
    """A file that was not written, a directory and a link cannot be recorded."""
    (tmp_path / "real").write_bytes(b"")
    with BundleTransaction(tmp_path / "b") as transaction:
        path = transaction.stage("a")
        if kind == "directory":
            path.mkdir()
        elif kind == "link":
            transaction.stage("real").write_bytes(b"")
            path.symlink_to("real")
        with pytest.raises(BundleError, match="a is not recorded: write it"):
            transaction.record("a", stage="graph")


def test_refuses_a_malformed_parent(tmp_path):
    """A parent is a bundle file or a checkpoint hash."""
    with BundleTransaction(tmp_path / "b") as transaction:
        transaction.stage("a").write_bytes(b"")
        with pytest.raises(ConfigError, match=r"record of a: .*64 lower-case"):
            transaction.record("a", stage="graph", parents=["checkpoint:x"])


def test_refuses_to_forget_a_staged_file(bundle):
    """A staged file that was not recorded, such as external data, stops the commit."""
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("onnx/b.data").write_bytes(b"")
        with pytest.raises(BundleError, match=r"not recorded.*: onnx/b\.data"):
            transaction.commit(transaction.previous)


def test_refuses_a_recorded_file_that_is_gone(bundle):
    """A recorded file that was removed stops the commit."""
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("a").write_bytes(b"")
        record = transaction.record("a", stage="graph")
        transaction.stage("a").unlink()
        with pytest.raises(BundleError, match="recorded but gone: a"):
            transaction.commit(transaction.previous.merged(files={"a": record}))


def test_refuses_a_file_changed_after_it_was_recorded(bundle):
    """A file that grew after its hash was taken stops the commit."""
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("a").write_bytes(b"")
        record = transaction.record("a", stage="graph")
        transaction.stage("a").write_bytes(b"more")
        with pytest.raises(BundleError, match="a changed after it was recorded"):
            transaction.commit(transaction.previous.merged(files={"a": record}))


def test_refuses_a_manifest_without_the_record(bundle):
    """A recorded file must be in the manifest as it was recorded."""
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("a").write_bytes(b"")
        record = transaction.record("a", stage="graph")
        with pytest.raises(BundleError, match="does not list a as it was recorded"):
            transaction.commit(transaction.previous)
        wrong = record.model_copy(update={"size_bytes": 7})
        with pytest.raises(BundleError, match="does not list a as it was recorded"):
            transaction.commit(transaction.previous.merged(files={"a": wrong}))
        transaction.commit(transaction.previous.merged(files={"a": record}))  # a refused commit can be mended
    assert Bundle.open(bundle.path).check("a")


def test_refuses_a_manifest_with_a_file_that_is_nowhere(bundle):
    """A file that was not staged must be the old one, by hash and on disk."""
    record = bundle.manifest.files["onnx/fp32.onnx"]
    other = record.model_copy(update={"sha256": "0" * 64})
    with BundleTransaction(bundle.path) as transaction:
        for files in ({"new": record}, {"onnx/fp32.onnx": other}):
            with pytest.raises(IntegrityError, match="was not staged"):
                transaction.commit(transaction.previous.merged(files=files))
        bundle.file("onnx/fp32.onnx").unlink()
        with pytest.raises(IntegrityError, match="is missing"):
            transaction.commit(transaction.previous)


def test_refuses_an_invalid_manifest(bundle):
    """A manifest made invalid behind pydantic's back is not published."""
    before = files_below(bundle.path)
    with (
        BundleTransaction(bundle.path) as transaction,
        pytest.raises(BundleError, match="the new manifest: "),
    ):
        transaction.commit(transaction.previous.model_copy(update={"variants": {"fp16": make_variant()}}))
    assert files_below(bundle.path) == before


def test_unreadable_manifest_is_not_overwritten(bundle):
    """A manifest that cannot be read, perhaps of another major version, is left alone."""
    (bundle.path / "manifest.json").write_bytes(b"{")
    with pytest.raises(BundleError, match="not valid JSON"), BundleTransaction(bundle.path):
        pass
    assert (bundle.path / "manifest.json").read_bytes() == b"{"
    assert not (bundle.path / ".transaction").exists()


def test_directory_in_the_place_of_a_file_is_found_before_the_commit(bundle):
    """A directory where a file is to go stops the commit while the old bundle is whole."""
    (bundle.path / "engines/a.engine/x").mkdir(parents=True)
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("engines/a.engine").write_bytes(b"")
        record = transaction.record("engines/a.engine", stage="engine")
        with pytest.raises(BundleError, match=r"engines/a\.engine is a directory"):
            transaction.commit(transaction.previous.merged(files={"engines/a.engine": record}))
    assert Bundle.open(bundle.path).manifest == bundle.manifest
