from __future__ import annotations

from pargo_export.checkpoint.presets import PRESETS, preset
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
