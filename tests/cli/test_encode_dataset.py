from __future__ import annotations

import pytest
from PIL import Image

from pargo_export.encoding import open_encoded

NUM_IMAGES = 5


@pytest.fixture
def folder(tmp_path):
    """Return a folder with pictures."""
    path = tmp_path / "pictures"
    path.mkdir()
    for index in range(NUM_IMAGES):
        Image.new("RGB", (30 + index, 40), (50 * index, 0, 90)).save(path / f"{index}.png")
    return path


@pytest.fixture
def encode(exported_bundle, folder, tmp_path):
    """Return the words of a command that encodes the folder in shards of two images."""
    return (
        "encode-dataset",
        exported_bundle,
        folder,
        "-o",
        tmp_path / "out",
        "--shard-size",
        2,
        "--threads",
        1,
    )


def test_json(run_json, encode, tmp_path):
    """What was written; called again, nothing is left to do."""
    result = run_json(*encode, "--format", "safetensors", "--variant", "fp32", "--precision", "fp32")
    assert (result["images"], result["rows"], result["shards"], result["failed"]) == (5, 5, 3, [])
    assert result["tokens"] == {"dtype": "float32", "shape": [22, 80]}
    assert (result["variant"], result["backend"], result["encoded_images"]) == ("fp32", "onnxruntime", 5)
    assert open_encoded(tmp_path / "out").ids == [f"{index}.png" for index in range(5)]
    again = run_json(*encode, "--format", "safetensors", "--variant", "fp32", "--precision", "fp32")
    assert (again["kept_shards"], again["encoded_images"]) == (3, 0)


def test_output_for_people(run, encode, folder, tmp_path, monkeypatch):
    """How many tokens, where, how fast, and what was left out."""
    monkeypatch.chdir(tmp_path)
    (folder / "1.png").write_bytes(b"broken")
    words = [*encode[:4], "out", *encode[5:]]
    lines = run(*words, "--on-error", "record").stdout.splitlines()
    assert lines[0] == "✓ out: 4 x visual_tokens float16[22, 80]"
    assert lines[1].startswith("  shards    3 parquet files, ")
    assert lines[2].startswith("  encoded   5 in ")
    assert lines[2].endswith(" images/s")
    assert "  left out  1.png: not a picture" in "\n".join(lines)
    again = run(*words, "--on-error", "record").stdout
    assert "  kept      3 shards that were there already" in again
    assert "  encoded   nothing, everything was there" in again


def test_resume_and_force(run, run_json, encode):
    """Other options are refused, unless what is there is thrown away."""
    run_json(*encode)
    result = run(*encode, "--precision", "fp32")
    assert result.exit_code == 1
    assert "dtype: float16 there, float32 now" in " ".join(result.stderr.split())
    assert run_json(*encode, "--precision", "fp32", "--force")["kept_shards"] == 0


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--variant", "int8"), 1, "there is no variant 'int8'"),
        (("--batch-size", 9), 1, "expected at most 4"),
        (("--carry", "caption"), 1, "expected nothing"),
        (("--id-column", "key"), 1, "which has no columns"),
        (("--workers", 2), 1, "of use to Ray alone"),
        (("--format", "zarr"), 2, "'parquet', 'safetensors'"),
    ],
    ids=str,
)
def test_errors(run, encode, options, status, message):
    """What cannot be done is one error."""
    result = run(*encode, *options)
    assert result.exit_code == status
    assert message in " ".join(result.stderr.split())
