from __future__ import annotations

import json
import threading
import time

import pytest
from bundle.conftest import CONTENTS
from bundle.samples import files_below, make_manifest, make_variant, write_bundle

from pargo_export.bundle import Bundle, BundleLockedError, BundleTransaction, journal, transaction
from pargo_export.bundle.lock import WriterLock
from pargo_export.errors import BundleError, IntegrityError

NEW = {"onnx/fp32.onnx": b"new graph", "engines/a.engine": b"engine"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Do not wait for seconds where a test waits in vain."""
    monkeypatch.setattr(journal, "_PATIENCE_S", 0.2)


@pytest.fixture
def interrupted(bundle, monkeypatch):
    """Return the path of a bundle whose change to `NEW` is decided but not carried out."""
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "roll_forward", lambda _: None)
        write_bundle(bundle.path, NEW)
    assert journal.has_journal(bundle.path)
    assert bundle.file("onnx/fp32.onnx").read_bytes() == CONTENTS["onnx/fp32.onnx"]
    return bundle.path


def test_opening_finishes_a_commit(interrupted):
    """Whoever opens the bundle next finds it changed, and tidy."""
    assert all(check.ok for check in Bundle.open(interrupted).verify())
    found = files_below(interrupted)
    assert found.pop("manifest.json")
    assert found == NEW
    assert not (interrupted / ".transaction").exists()


def test_next_transaction_finishes_a_commit(interrupted):
    """A writer that comes next starts from the changed bundle."""
    with BundleTransaction(interrupted) as following:
        assert set(following.previous.files) == set(NEW)


def test_first_commit_counts_as_a_bundle(tmp_path, monkeypatch):
    """A new bundle exists from the commit point on, before its manifest is in place."""
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "roll_forward", lambda _: None)
        write_bundle(tmp_path / "b", NEW)
    assert not (tmp_path / "b/manifest.json").exists()
    assert Bundle.exists(tmp_path / "b")
    assert set(Bundle.open(tmp_path / "b").manifest.files) == set(NEW)


def test_staged_files_without_a_journal_are_garbage(bundle):
    """What a killed transaction staged is left alone by readers and removed by the next writer."""
    garbage = bundle.path / ".transaction/staged/onnx/fp32.onnx"
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(b"half")
    (bundle.path / ".transaction/.commit.json.0123.tmp").write_bytes(b"{")
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert garbage.exists()
    with BundleTransaction(bundle.path) as following:
        assert not garbage.exists()
        assert following.previous == bundle.manifest
    assert not (bundle.path / ".transaction").exists()


def test_reader_waits_for_a_live_commit(interrupted, monkeypatch):
    """A reader that meets a commit in progress gets the bundle after it."""
    monkeypatch.setattr(journal, "_PATIENCE_S", 30.0)
    lock = WriterLock(interrupted)
    lock.acquire()

    def finish():
        time.sleep(0.2)
        journal.roll_forward(interrupted)
        lock.release()

    writer = threading.Thread(target=finish)
    writer.start()
    try:
        assert set(Bundle.open(interrupted).manifest.files) == set(NEW)
    finally:
        writer.join()


def test_reader_does_not_wait_for_ever(interrupted):
    """A live writer that does not finish its commit is reported after a short wait."""
    lock = WriterLock(interrupted)
    lock.acquire()
    try:
        with pytest.raises(BundleLockedError, match="does not finish; try again"):
            Bundle.open(interrupted)
    finally:
        lock.release()
    assert set(Bundle.open(interrupted).manifest.files) == set(NEW)


def test_reader_reads_again_if_a_commit_came_between(bundle, monkeypatch):
    """A commit between reading the manifest and looking at the files is not mistaken for damage."""
    original = Bundle.__init__
    commits = iter([NEW, CONTENTS])

    def commit_meanwhile(self, path, manifest):
        original(self, path, manifest)
        contents = next(commits, None)
        if contents is not None:
            write_bundle(path, contents)

    monkeypatch.setattr(Bundle, "__init__", commit_meanwhile)
    assert set(Bundle.open(bundle.path).manifest.files) == set(CONTENTS)


def test_reader_gives_up_on_a_bundle_that_never_rests(bundle, monkeypatch):
    """A bundle that changes each time it is looked at ends in an error, not in a hang."""
    original = Bundle.__init__

    def commit_meanwhile(self, path, manifest):
        original(self, path, manifest)
        tools = {"count": str(1 + int(manifest.tools.get("count", 0)))}
        (path / "manifest.json").write_bytes(manifest.merged(tools=tools).to_json())

    monkeypatch.setattr(Bundle, "__init__", commit_meanwhile)
    with pytest.raises(BundleError, match="changes faster than it can be read"):
        Bundle.open(bundle.path)


def edit(path, changes):
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": ["../outside"]}, r"'\.\./outside' is refused"),
        ({"obsolete": ["/etc/passwd"]}, "'/etc/passwd' is refused"),
        ({"obsolete": ["manifest.json"]}, "reserved"),
        ({"manifest_sha256": "0" * 64}, "not the manifest that it announces"),
        ({"format": 2}, "is damaged.*repeat the stage"),
    ],
)
def test_refuses_a_forged_journal(changes, message, interrupted):
    """A journal that reaches outside, or does not fit what was staged, is refused and does nothing."""
    before = files_below(interrupted)
    edit(interrupted / ".transaction/commit.json", changes)
    with pytest.raises(BundleError, match=message):
        Bundle.open(interrupted)
    after = files_below(interrupted)
    after[".transaction/commit.json"] = before[".transaction/commit.json"]
    assert after == before


def test_refuses_a_journal_that_is_no_json(interrupted):
    """A damaged journal says what to remove."""
    (interrupted / ".transaction/commit.json").write_bytes(b"{")
    with pytest.raises(BundleError, match=r"is damaged.*remove .*\.transaction"):
        Bundle.open(interrupted)
    with pytest.raises(BundleError, match="is damaged"), BundleTransaction(interrupted):
        pass
    assert journal.has_journal(interrupted)


def test_lost_staged_file_is_found(interrupted):
    """A staged file that somebody removed is a missing file of the new bundle."""
    (interrupted / ".transaction/staged/engines/a.engine").unlink()
    with pytest.raises(IntegrityError, match=r"engines/a\.engine is missing"):
        Bundle.open(interrupted)


def test_does_not_rename_from_or_to_outside(interrupted, tmp_path):
    """Planted links, below the staged files or in the bundle, move nothing in or out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.engine").write_bytes(b"private")
    staged = interrupted / ".transaction/staged/engines"
    staged.rename(tmp_path / "staged-engines")
    staged.symlink_to(outside)
    with pytest.raises(BundleError, match="symbolic link leads out"):
        Bundle.open(interrupted)
    staged.unlink()
    (tmp_path / "staged-engines").rename(staged)
    (interrupted / "engines").rmdir()
    (interrupted / "engines").symlink_to(outside)
    with pytest.raises(BundleError, match="symbolic link leads out"):
        Bundle.open(interrupted)
    assert (outside / "a.engine").read_bytes() == b"private"
    (interrupted / "engines").unlink()
    assert all(check.ok for check in Bundle.open(interrupted).verify())


def test_work_directory_that_is_a_link_is_refused(interrupted, tmp_path):
    """A journal behind a link is not followed."""
    (interrupted / ".transaction").rename(tmp_path / "elsewhere")
    (interrupted / ".transaction").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a symbolic link"):
        Bundle.open(interrupted)


def test_failed_commit_after_the_decision_says_so(bundle, monkeypatch):
    """If a rename fails after the commit point, the error says that the change is recorded, and it is."""

    def fail(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, BundleTransaction(bundle.path) as change:
        change.stage("onnx/fp32.onnx").write_bytes(b"new")
        record = change.record("onnx/fp32.onnx", stage="graph")
        patch.setattr(transaction, "roll_forward", fail)
        with pytest.raises(BundleError, match=r"free space there.*The change is recorded"):
            change.commit(make_manifest({"onnx/fp32.onnx": record}, variants={"fp32": make_variant()}))
    assert Bundle.open(bundle.path).check("onnx/fp32.onnx").read_bytes() == b"new"
