from __future__ import annotations

import errno

from pargo_export.assets import TRAINED_SAMPLE
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.model import trained_sample
from pargo_export.model.loading import load_checkpoint


def test_sample_is_loadable(run_json, tmp_path):
    """The file that is written is a checkpoint of the preset."""
    path = tmp_path / "sample.safetensors"
    result = run_json("sample", "--preset", "tiny-qformer", "-o", path, "--seed", 3)
    assert result == {
        "path": str(path),
        "preset": "tiny-qformer",
        "seed": 3,
        "size_bytes": path.stat().st_size,
    }
    assert load_checkpoint(path).config == preset("tiny-qformer")


def test_output_for_people(run, tmp_path, monkeypatch):
    """One line says what was written."""
    monkeypatch.chdir(tmp_path)
    assert run("sample", "-o", "s.safetensors").stdout == "s.safetensors: 1.33 MB, preset tiny, seed 0\n"


def test_list(run, run_json):
    """The presets are listed with their sizes, or with --json in full."""
    lines = run("sample", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    assert lines[1].split()[1:] == ["pargo", "336", "x", "336", "24", "x", "1024", "304", "x", "4096"]
    assert list(run_json("sample", "--list")) == list(PRESETS)


def test_existing_files_are_kept(run, tmp_path):
    """A file is replaced only with --overwrite."""
    path = tmp_path / "sample.pt"
    path.write_bytes(b"mine")
    result = run("sample", "-o", path)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert path.read_bytes() == b"mine"
    assert run("sample", "-o", path, "--overwrite").exit_code == 0
    assert path.stat().st_size > 1000


def test_usage_errors(run, tmp_path):
    """A missing output and an unknown preset are usage errors."""
    assert run("sample").exit_code == 2
    result = run("sample", "--preset", "huge", "-o", tmp_path / "s.pt")
    assert result.exit_code == 2
    assert "eva02-l-336-internlm2-7b" in result.stderr


def test_trained_sample_is_copied(run_json, tmp_path):
    """Checkpoint, language model and card are copied byte by byte, and the checkpoint loads."""
    output = tmp_path / "deep" / "sample"
    result = run_json("sample", "--trained", "-o", output)
    copied = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert copied == {
        path.relative_to(TRAINED_SAMPLE): path.read_bytes()
        for path in TRAINED_SAMPLE.rglob("*")
        if path.is_file()
    }
    assert result["path"] == str(output)
    assert result["llm"] == str(output / "llm")
    assert result["size_bytes"] == sum(map(len, copied.values()))
    assert load_checkpoint(result["checkpoint"]).config.projector.kind == "pargo"
    assert [path.name for path in output.parent.iterdir()] == ["sample"]


def test_trained_sample_keeps_what_is_there(run, tmp_path):
    """An earlier copy is replaced with --overwrite alone, and a directory of anything else never."""
    output = tmp_path / "sample"
    assert run("sample", "--trained", "-o", output).exit_code == 0
    (output / "CARD.md").write_text("changed")
    refused = run("sample", "--trained", "-o", output)
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert (output / "CARD.md").read_text() == "changed"
    assert run("sample", "--trained", "-o", output, "--overwrite").exit_code == 0
    assert (output / "CARD.md").read_text() != "changed"
    (output / "mine.txt").write_text("mine")
    refused = run("sample", "--trained", "-o", output, "--overwrite")
    assert refused.exit_code == 1
    assert "mine.txt" in refused.stderr
    assert (output / "mine.txt").read_text() == "mine"
    assert run("sample", "--trained", "-o", output / "mine.txt").exit_code == 1


def test_failed_copy_leaves_the_old_one(run, tmp_path, monkeypatch):
    """A full disk is one error that says so; the earlier copy is as it was and nothing is left beside it."""
    output = tmp_path / "sample"
    assert run("sample", "--trained", "-o", output).exit_code == 0

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trained_sample, "fsync_file", full)
    failed = run("sample", "--trained", "-o", output, "--overwrite")
    assert failed.exit_code == 1
    assert "free some space" in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert (output / "model.safetensors").is_file()


def test_trained_weights_cannot_be_chosen(run, tmp_path):
    """Options that choose random weights do not go with --trained."""
    result = run("sample", "--trained", "--seed", 3, "-o", tmp_path / "s")
    assert result.exit_code == 2
    assert "--seed" in result.stderr
