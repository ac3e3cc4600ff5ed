from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle.conftest import CONTENTS
from bundle.samples import files_below, make_variant, write_bundle

from pargo_export.bundle import Bundle, BundleTransaction, journal, transaction
from pargo_export.errors import BundleError

NOBODY = 65534
KIB = 1024


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 1 MiB; skip where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs", str(disk)]
    result = subprocess.run([mount, *options], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {result.stderr.strip()}")
    yield disk
    subprocess.run([str(shutil.which("umount")), str(disk)], check=True)


class Unprivileged:
    """A directory, and a user whom its permissions bind for the length of a `with` block.

    Root becomes another user; everybody else stays who they are, and `seal` binds them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_root = os.geteuid() == 0

    def __enter__(self):
        if self.is_root:
            os.seteuid(NOBODY)

    def __exit__(self, *_):
        if self.is_root:
            os.seteuid(0)

    def seal(self, path: Path, mode: int = 0o555) -> None:
        """Set the mode of a directory and of those below it."""
        for directory, _, _ in os.walk(path, topdown=False):
            Path(directory).chmod(mode)


@pytest.fixture
def unprivileged():
    """Return a directory and a user bound by its permissions; skip where there is no such user."""
    user = Unprivileged(Path(tempfile.mkdtemp()))
    user.path.chmod(0o755)
    with user:
        reachable = os.access(user.path, os.R_OK, effective_ids=True)
    if not reachable:
        pytest.skip("an unprivileged user cannot reach the temporary directory")
    yield user
    user.path.chmod(0o755)
    user.seal(user.path, 0o755)
    shutil.rmtree(user.path)


def error_of(work: Callable[[], None]) -> str | None:
    """Message of the BundleError that `work` raises; `None` if it succeeds."""
    try:
        work()
    except BundleError as error:
        return str(error)
    return None


def add_engine(path: Path, size_bytes: int) -> None:
    """Add an engine to a bundle, as a later stage does."""
    with BundleTransaction(path) as change:
        with change.stage("engines/a.engine").open("wb") as file:
            for _ in range(0, size_bytes, KIB):
                file.write(b"x" * KIB)
        record = change.record("engines/a.engine", stage="engine")
        change.commit(change.previous.merged(files={"engines/a.engine": record}))


def test_full_disk_while_staging(small_disk):
    """A file that does not fit leaves the old bundle and gives the space back."""
    path = small_disk / "bundle"
    write_bundle(path, {"onnx/fp32.onnx": b"x" * 300 * KIB})
    before = files_below(path)
    with pytest.raises(BundleError, match=r"No space left.*free space there.*as it was before"):
        add_engine(path, 2000 * KIB)
    assert files_below(path) == before
    add_engine(path, 300 * KIB)
    assert all(check.ok for check in Bundle.open(path).verify())


def test_full_disk_while_making_a_bundle(small_disk):
    """A new bundle that does not fit leaves nothing."""
    with pytest.raises(BundleError, match="free space there"):
        write_bundle(small_disk / "a/bundle", {"onnx/fp32.onnx": b"x" * 2000 * KIB})
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("resource_name", ["pages", "inodes"])
def test_disk_that_fills_up_at_any_moment(resource_name, small_disk):
    """However little space is left, a commit succeeds, or fails with the old bundle in place."""
    path = small_disk / "bundle"
    outcomes = set()
    for left in range(24):
        write_bundle(path, CONTENTS, variants={"fp32": make_variant()})
        free = os.statvfs(small_disk)
        if resource_name == "pages":
            with (small_disk / "filler").open("wb") as file:
                file.write(b"x" * max(0, free.f_bavail - left) * free.f_frsize)
        else:
            (small_disk / "filler").mkdir()
            for index in range(free.f_favail - 1 - left):
                (small_disk / f"filler/{index}").touch()
        before = files_below(path)
        message = error_of(lambda: add_engine(path, 8 * KIB))
        outcomes.add("committed" if message is None else "refused")
        assert message is None or ("free space there" in message and files_below(path) == before)
        filler = small_disk / "filler"
        filler.unlink() if filler.is_file() else shutil.rmtree(filler)
        bundle = Bundle.open(path)
        assert all(check.ok for check in bundle.verify())
        assert ("engines/a.engine" in bundle.manifest.files) == (message is None)
    assert outcomes == {"committed", "refused"}


def test_bundle_across_two_file_systems(small_disk):
    """A folder of the bundle on another file system stops the commit while the old bundle is whole."""
    path = small_disk.parent
    write_bundle(path, CONTENTS)
    with BundleTransaction(path) as change:
        change.stage("disk/a.engine").write_bytes(b"")
        record = change.record("disk/a.engine", stage="engine")
        with pytest.raises(BundleError, match="disk is on another file system"):
            change.commit(change.previous.merged(files={"disk/a.engine": record}))
    assert Bundle.open(path).check("onnx/fp32.onnx")


def test_file_size_limit(bundle):
    """A file-size limit (`ulimit -f`) is reported like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KIB, hard))
    try:
        with pytest.raises(BundleError, match=r"File too large.*file-size limit"):
            add_engine(bundle.path, 100 * KIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all(check.ok for check in Bundle.open(bundle.path).verify())


def test_other_errors_of_the_block_pass_through(bundle):
    """An error that has nothing to do with the bundle's disk stays what it is."""
    with pytest.raises(FileNotFoundError), BundleTransaction(bundle.path):
        Path("/nonexistent/photo.jpg").read_bytes()


def test_space_error_after_the_commit_passes_through(tmp_path):
    """Once committed, a full disk elsewhere says nothing about the bundle."""
    write_bundle(tmp_path / "b", {})

    def commit_and_fail():
        with BundleTransaction(tmp_path / "b") as change:
            change.commit(change.previous)
            raise OSError(28, "elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        commit_and_fail()


@pytest.mark.parametrize("relative", ["file", "file/bundle"])
def test_path_that_is_a_file(relative, tmp_path):
    """A file in the place of the bundle, or of its parent, is named and left alone."""
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(BundleError, match=r"Not a directory.*a file is where a directory is needed"):
        write_bundle(tmp_path / relative, {})
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_read_only_bundle_can_be_read_but_not_changed(unprivileged):
    """Reading needs no write access; writing without it is refused with the mend."""
    path = unprivileged.path / "bundle"
    write_bundle(path, CONTENTS)
    unprivileged.seal(path)
    with unprivileged:
        assert all(check.ok for check in Bundle.open(path).verify())
        with pytest.raises(BundleError, match=r"Permission denied.*get write access.*as it was before"):
            add_engine(path, KIB)
    assert set(files_below(path)) == {*CONTENTS, "manifest.json"}


def test_new_bundle_in_a_read_only_directory(unprivileged):
    """A place where nothing can be made is refused with the mend."""
    unprivileged.seal(unprivileged.path)
    with unprivileged, pytest.raises(BundleError, match=r"Permission denied.*choose another directory"):
        write_bundle(unprivileged.path / "a/bundle", CONTENTS)


def test_read_only_bundle_with_an_interrupted_commit(unprivileged, monkeypatch):
    """A commit that cannot be finished for lack of write access says so, and is finished by who has it."""
    monkeypatch.setattr(journal, "_PATIENCE_S", 0.1)
    path = unprivileged.path / "bundle"
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "roll_forward", lambda _: None)
        write_bundle(path, CONTENTS)
    unprivileged.seal(path)
    with unprivileged, pytest.raises(BundleError, match="open the bundle once with write access"):
        Bundle.open(path)
    unprivileged.seal(path, 0o755)
    assert set(Bundle.open(path).manifest.files) == set(CONTENTS)


def test_read_only_folder_is_found_before_the_commit(unprivileged):
    """A folder of the bundle that cannot be written stops the commit while the old bundle is whole."""
    path = unprivileged.path / "bundle"
    write_bundle(path, CONTENTS)
    (path / "engines").mkdir()
    path.chmod(0o777)
    unprivileged.seal(path / "engines")
    with unprivileged, pytest.raises(BundleError, match="engines is not writable; get write access"):
        add_engine(path, KIB)
    assert set(Bundle.open(path).manifest.files) == set(CONTENTS)
    assert not journal.has_journal(path)


def test_unreadable_files_are_reported(unprivileged):
    """A file, a manifest or a directory without read permission is named, not a crash."""
    path = unprivileged.path / "bundle"
    write_bundle(path, CONTENTS)
    (path / "onnx/fp32.onnx").chmod(0)
    with unprivileged:
        (bad,) = [check for check in Bundle.open(path).verify() if not check.ok]
    assert bad.path == "onnx/fp32.onnx"
    assert "Permission denied" in bad.reason
    (path / "manifest.json").chmod(0)
    with unprivileged, pytest.raises(BundleError, match=r"manifest\.json cannot be read.*permissions"):
        Bundle.open(path)
    unprivileged.path.chmod(0)
    with unprivileged, pytest.raises(BundleError, match=r"cannot be opened.*check the permissions"):
        Bundle.open(path)
    unprivileged.path.chmod(0o755)
