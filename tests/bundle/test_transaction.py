from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from bundle.samples import files_below, make_manifest, make_variant, write_bundle

from pargo_export.bundle import Bundle, BundleLockedError, BundleTransaction
from pargo_export.bundle.hashing import sha256_bytes
from pargo_export.errors import BundleError, IntegrityError


def stage_and_raise(path: Path, error: BaseException) -> None:
    """Fail after two files were staged."""
    with BundleTransaction(path) as transaction:
        transaction.stage("onnx/fp32.onnx").write_bytes(b"new")
        transaction.stage("engines/deep/a.engine").write_bytes(b"new")
        raise error


def test_makes_a_bundle_with_its_parents(tmp_path):
    """A new bundle may lie in directories that do not exist yet."""
    path = tmp_path / "a/b/bundle"
    manifest = write_bundle(path, {"onnx/fp32.onnx": b"graph"})
    assert Bundle.open(path).manifest == manifest
    record = manifest.files["onnx/fp32.onnx"]
    assert (record.sha256, record.size_bytes, record.stage) == (sha256_bytes(b"graph"), 5, "graph")


def test_has_no_previous_manifest_at_first(tmp_path):
    """A new bundle has no previous manifest, an existing one has."""
    with BundleTransaction(tmp_path / "b") as transaction:
        assert transaction.previous is None
        transaction.commit(make_manifest())
    with BundleTransaction(tmp_path / "b") as transaction:
        assert transaction.previous == make_manifest()


def test_graph_and_weights_are_staged_side_by_side(tmp_path):
    """A writer that is given one path may write another file beside it, as ONNX external data."""
    with BundleTransaction(tmp_path / "b") as transaction:
        graph = transaction.stage("onnx/fp32.onnx")
        graph.write_bytes(b"graph")
        graph.with_name(graph.name + ".data").write_bytes(b"weights")
        assert graph.stat().st_dev == (tmp_path / "b").stat().st_dev
        files = {
            name: transaction.record(name, stage="graph")
            for name in ("onnx/fp32.onnx", "onnx/fp32.onnx.data")
        }
        transaction.commit(make_manifest(files))
    assert (tmp_path / "b/onnx/fp32.onnx.data").read_bytes() == b"weights"


def test_adds_to_a_bundle(bundle):
    """A later stage adds a file and keeps the others untouched."""
    untouched = bundle.file("onnx/fp32.onnx").stat()
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("onnx/fp16.onnx").write_bytes(b"half")
        record = transaction.record("onnx/fp16.onnx", stage="graph", parents=["onnx/fp32.onnx"])
        variants = [make_variant("fp16", precision="float16")]
        transaction.commit(transaction.previous.merged(files={"onnx/fp16.onnx": record}, variants=variants))
    result = Bundle.open(bundle.path)
    assert set(result.manifest.variants) == {"fp16", "fp32"}
    assert result.manifest.files["onnx/fp16.onnx"].parents == ("onnx/fp32.onnx",)
    assert all(check.ok for check in result.verify())
    assert bundle.file("onnx/fp32.onnx").stat() == untouched


def test_replaces_and_removes(bundle):
    """A file that the new manifest does not list is removed; a stranger's file is not."""
    (bundle.path / "onnx/notes.txt").write_text("mine")
    write_bundle(bundle.path, {"onnx/fp32.onnx": b"new"})
    assert set(files_below(bundle.path)) == {"manifest.json", "onnx/fp32.onnx", "onnx/notes.txt"}
    assert Bundle.open(bundle.path).check("onnx/fp32.onnx").read_bytes() == b"new"


def test_exception_leaves_the_old_bundle(bundle):
    """An exception in the block changes nothing and passes through."""
    before = files_below(bundle.path)
    with pytest.raises(KeyboardInterrupt):
        stage_and_raise(bundle.path, KeyboardInterrupt())
    assert files_below(bundle.path) == before
    assert not (bundle.path / ".transaction").exists()
    assert not (bundle.path / "engines").exists()


def test_exception_removes_a_new_bundle(tmp_path):
    """A bundle directory that did not exist, and its new parents, are removed again."""
    with pytest.raises(RuntimeError):
        stage_and_raise(tmp_path / "a/b", RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_commit_changes_nothing(bundle):
    """Not committing is a way to change one's mind."""
    before = files_below(bundle.path)
    with BundleTransaction(bundle.path) as transaction:
        transaction.stage("onnx/fp32.onnx").write_bytes(b"new")
    assert files_below(bundle.path) == before


def test_can_only_be_used_inside_the_block(tmp_path):
    """Before `with`, after it and after the commit there is nothing to stage to."""
    transaction = BundleTransaction(tmp_path / "b")
    with pytest.raises(BundleError, match="has not begun"):
        transaction.stage("a")
    with transaction:
        transaction.commit(make_manifest())
        for use in (lambda: transaction.stage("a"), lambda: transaction.commit(make_manifest())):
            with pytest.raises(BundleError, match="is over"):
                use()
    with pytest.raises(BundleError, match="is over"):
        transaction.record("a", stage="graph")


def test_damaged_bundle_can_be_written_again(bundle):
    """A bundle that lost a file cannot be opened, but exporting again mends it."""
    bundle.file("onnx/fp32.onnx").unlink()
    with pytest.raises(IntegrityError):
        Bundle.open(bundle.path)
    write_bundle(bundle.path, {"onnx/fp32.onnx": b"graph"})
    assert all(check.ok for check in Bundle.open(bundle.path).verify())


def test_second_writer_is_refused_at_once(bundle):
    """Writers exclude each other; the message names the bundle, and readers are not disturbed."""
    with BundleTransaction(bundle.path) as first:
        with pytest.raises(BundleLockedError, match=str(bundle.path)), BundleTransaction(bundle.path):
            pass
        assert Bundle.open(bundle.path).manifest == bundle.manifest
        first.stage("a").write_bytes(b"")  # the loser removed nothing of the winner
        record = first.record("a", stage="graph")
        first.commit(first.previous.merged(files={"a": record}))
    with BundleTransaction(bundle.path):
        pass


def test_second_writer_of_a_new_bundle_is_refused(tmp_path):
    """The lock holds before there is a manifest."""
    with BundleTransaction(tmp_path / "b") as first:
        with pytest.raises(BundleLockedError), BundleTransaction(tmp_path / "b"):
            pass
        first.commit(make_manifest())
    assert Bundle.open(tmp_path / "b")


def test_everything_is_durable_before_the_commit_point(bundle, monkeypatch):
    """Before the journal appears, each staged file and each directory on the way to it has been fsynced."""
    synced, at_commit = set(), {}
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add((status.st_ino, stat.S_ISDIR(status.st_mode) or status.st_size))

    def logged_replace(source, target, **options):
        if str(target).endswith("commit.json"):
            for item in (bundle.path, *(bundle.path / ".transaction").rglob("*")):
                status = item.stat()
                key = (status.st_ino, item.is_dir() or status.st_size)
                at_commit[str(item.relative_to(bundle.path))] = key in synced
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    write_bundle(bundle.path, {"onnx/fp32.onnx": b"new", "engines/deep/a.engine": b"engine"})
    assert len(at_commit) == 10  # the bundle, the staged directories and files, manifest, journal, lock
    assert [name for name, durable in at_commit.items() if not durable] == [".transaction/lock"]


def test_everything_is_durable_before_the_journal_goes(bundle, monkeypatch):
    """The journal goes only after each directory that a file was renamed into has been fsynced since."""
    dirty, at_end = set(), []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def logged_fsync(descriptor):
        fsync(descriptor)
        dirty.discard(os.fstat(descriptor).st_ino)

    def logged_replace(source, target, **options):
        replace(source, target, **options)
        dirty.add(os.stat(os.path.dirname(target)).st_ino)  # noqa: PTH116, PTH120

    def logged_unlink(path, **options):
        if str(path).endswith("commit.json"):
            at_end.append(set(dirty))
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    monkeypatch.setattr(os, "unlink", logged_unlink)
    write_bundle(bundle.path, {"onnx/fp32.onnx": b"new", "engines/deep/a.engine": b"engine"})
    assert at_end == [set()]
