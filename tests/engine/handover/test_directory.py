"""A hand-over is there whole or not at all, and replaces only what a hand-over wrote."""

from __future__ import annotations

import json

import pytest
from bundle.samples import files_below

from pargo_export.engine.handover.directory import RECORD_NAME, finish, output_directory
from pargo_export.engine.handover.source import find_source
from pargo_export.errors import EngineError


@pytest.fixture
def source(bundle):
    """The variant fp32."""
    return find_source(bundle, variant="fp32", engine=None)


@pytest.fixture
def hand_over(source, tmp_path):
    """Return a function that hands over one file with a content."""

    def hand_over(content, *, path=tmp_path / "out" / "there", force=False):
        with output_directory(path, source, force=force) as directory:
            (directory / "file").write_text(content)
            return finish(directory, path, "triton", source, readme="Read me.", notes=("a note",))

    return hand_over


def test_what_is_written(hand_over, source, tmp_path):
    """The files, a README and a record of what it was made from; nothing lies beside the directory."""
    result = hand_over("new")
    assert result.files == ("README.md", "file", RECORD_NAME)
    assert (result.path, result.variant, result.engine) == (tmp_path / "out/there", "fp32", None)
    record = json.loads((result.path / RECORD_NAME).read_text())
    assert (record["format"], record["notes"]) == ("triton", ["a note"])
    assert record["graph_sha256"] == source.graph_sha256
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["there"]


def test_earlier_hand_over(hand_over):
    """It is replaced by force alone, and then no file of it stays."""
    path = hand_over("old").path
    (path / "more").write_text("of the old one")
    with pytest.raises(EngineError, match="replace it with --force"):
        hand_over("new")
    assert (path / "file").read_text() == "old"
    hand_over("new", force=True)
    assert set(files_below(path)) == {"README.md", "file", RECORD_NAME}
    assert (path / "file").read_text() == "new"
    assert [item.name for item in path.parent.iterdir()] == ["there"]


def test_files_of_others(hand_over, tmp_path):
    """A directory that no hand-over wrote is not replaced, not even by force; an empty one is filled."""
    (tmp_path / "home").mkdir()
    assert hand_over("new", path=tmp_path / "home").path == tmp_path / "home"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    with pytest.raises(EngineError, match="not even by force"):
        hand_over("new", path=tmp_path / "precious", force=True)
    assert files_below(tmp_path / "precious") == {"file": b"precious"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_no_directory(hand_over, tmp_path, kind):
    """A file, or a link to a directory, stands in the way."""
    path = tmp_path / "there"
    if kind == "file":
        path.write_text("something")
    else:
        path.symlink_to(tmp_path)
    with pytest.raises(EngineError, match="is no directory"):
        hand_over("new", path=path, force=True)


@pytest.mark.parametrize("inside", [".", "served", "engines/served"])
def test_in_the_bundle(hand_over, bundle, inside):
    """The bundle lists its files; a hand-over does not go there."""
    before = files_below(bundle)
    with pytest.raises(EngineError, match="lies in the bundle"):
        hand_over("new", path=bundle / inside, force=True)
    assert files_below(bundle) == before


@pytest.mark.parametrize("error", [RuntimeError("halfway"), OSError(28, "No space left on device")])
def test_failure_changes_nothing(hand_over, source, tmp_path, error):
    """After a failure the old directory is as it was, and nothing lies beside it."""
    path = hand_over("old").path
    expected = EngineError if isinstance(error, OSError) else RuntimeError

    def fail():
        with output_directory(path, source, force=True) as directory:
            (directory / "file").write_text("new")
            raise error

    with pytest.raises(expected):
        fail()
    assert (path / "file").read_text() == "old"
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["there"]


def test_parent_that_is_a_file(hand_over, tmp_path):
    """What the system says is told, with the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"file/there cannot be written: .*nothing was changed"):
        hand_over("new", path=tmp_path / "file" / "there")
