from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tolerances import TOLERANCES

from pargo_export.assets import PHOTOGRAPH
from pargo_export.runtime import Runtime

SIZES = ((40, 30), (84, 84), (10, 200), (300, 20), (1, 1))


@pytest.fixture
def folder(tmp_path):
    """Return a folder with pictures, one of them in a folder of its own, and a text file."""
    path = tmp_path / "pictures"
    (path / "inner").mkdir(parents=True)
    for index, size in enumerate(SIZES):
        name = f"inner/{index}.PNG" if index == 2 else f"{index}.png"
        Image.new("RGB", size, (50 * index, 0, 90)).save(path / name)
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture(scope="module")
def runtime(exported_bundle):
    """Return a runtime of the variant that the command chooses."""
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as opened:
        yield opened


def _read(path):
    with safe_open(path, "np") as file:
        return file.get_tensor("visual_tokens"), file.metadata()


def test_directory(run_json, runtime, exported_bundle, folder, tmp_path):
    """The pictures of a directory, subdirectories included, are encoded in the order of their names."""
    out = tmp_path / "tokens.safetensors"
    result = run_json("run", exported_bundle, folder, "-o", out, "--threads", 1)
    names = [str(folder / name) for name in ("0.png", "1.png", "3.png", "4.png", "inner/2.PNG")]
    tokens, metadata = _read(out)
    assert result["images"] == names == json.loads(metadata["images"])
    assert result["arrays"] == {"visual_tokens": {"dtype": "float32", "shape": [5, 22, 80]}}
    assert (result["variant"], result["backend"], result["skipped"]) == ("fp32", "onnxruntime", [])
    np.testing.assert_allclose(
        tokens, runtime.encode(names), atol=TOLERANCES["runtime-batching"].value, rtol=0
    )


def test_files_keep_their_order(run_json, runtime, exported_bundle, folder, tmp_path):
    """Files are encoded as they were named, twice if named twice, in batches of the size that was asked for."""
    out = tmp_path / "tokens.npz"
    images = [folder / name for name in ("4.png", "0.png", "4.png")]
    run_json("run", exported_bundle, *images, "-o", out, "--batch", 2, "--variant", "fp32", "--threads", 1)
    with np.load(out) as file:
        tokens = file["visual_tokens"]
    np.testing.assert_allclose(
        tokens, runtime.encode(images), atol=TOLERANCES["runtime-batching"].value, rtol=0
    )


def test_output_for_people(run, exported_bundle, folder, tmp_path, monkeypatch):
    """What was written, from how many pictures, by which graph."""
    monkeypatch.chdir(tmp_path)
    result = run("run", exported_bundle, folder / "0.png", "-o", "t.safetensors")
    lines = result.stdout.splitlines()
    assert lines[0] == "✓ t.safetensors: visual_tokens float32[1, 22, 80]"
    assert lines[1].startswith("  images  1 in ")
    assert lines[2] == "  graph   fp32 on onnxruntime"


def test_broken_picture(run, exported_bundle, folder, tmp_path):
    """A broken picture is named, and nothing is written."""
    (folder / "1.png").write_bytes(b"broken")
    out = tmp_path / "tokens.npz"
    result = run("run", exported_bundle, folder, "-o", out)
    assert result.exit_code == 1
    assert str(folder / "1.png") in result.stderr
    assert not out.exists()


def test_skip_broken(run, run_json, exported_bundle, folder, tmp_path):
    """With --skip-broken the others are encoded and the broken ones listed."""
    (folder / "1.png").write_bytes(b"broken")
    out = tmp_path / "tokens.safetensors"
    result = run_json("run", exported_bundle, folder, "-o", out, "--skip-broken", "--batch", 1)
    assert [item["image"] for item in result["skipped"]] == [str(folder / "1.png")]
    assert len(result["images"]) == len(_read(out)[0]) == 4
    text = run("run", exported_bundle, folder, "-o", out, "--skip-broken", "--overwrite").stdout
    assert "  skipped" in text
    only = run("run", exported_bundle, folder / "1.png", "-o", tmp_path / "none.npz", "--skip-broken")
    assert only.exit_code == 1
    assert "none of the 1 pictures can be read" in only.stderr


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("tokens.pt", "use .safetensors or .npz"),
        ("exists.npz", "--overwrite"),
        ("nowhere/tokens.npz", "directory does not exist"),
    ],
)
def test_output_is_checked_first(run, exported_bundle, folder, tmp_path, output, message):
    """A file that cannot be written is an error before anything is computed."""
    (tmp_path / "exists.npz").write_bytes(b"mine")
    result = run("run", exported_bundle, folder, "-o", tmp_path / output)
    assert result.exit_code == 1
    assert message in result.stderr
    assert (tmp_path / "exists.npz").read_bytes() == b"mine"


def test_empty_directory(run, exported_bundle, tmp_path):
    """A directory without pictures is an error that says what is looked for."""
    (tmp_path / "empty").mkdir()
    result = run("run", exported_bundle, tmp_path / "empty", "-o", tmp_path / "tokens.npz")
    assert result.exit_code == 1
    assert ".jpeg" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "int8"), "there is no variant 'int8'"),
        (("--backend", "abacus"), "unknown backend 'abacus'"),
        (("--variant", "external"), "projector"),
        (("--variant", "bf16", "--backend", "onnxruntime"), "bfloat16"),
        (("--batch", "9"), "batch_size"),
    ],
)
def test_errors(run, exported_bundle, folder, tmp_path, arguments, message):
    """What the runtime refuses is one error."""
    result = run("run", exported_bundle, folder, "-o", tmp_path / "tokens.npz", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_images_are_required(run, exported_bundle, tmp_path):
    """No pictures at all are a usage error."""
    assert run("run", exported_bundle, "-o", tmp_path / "tokens.npz").exit_code == 2


def test_an_engine_that_is_not_there(run, exported_bundle, tmp_path):
    """It is named, with the command that builds one; nothing is written."""
    output = tmp_path / "tokens.npz"
    result = run("run", exported_bundle, PHOTOGRAPH, "--engine", "fp16-sm87", "-o", output)
    assert result.exit_code == 1
    assert "there is no engine 'fp16-sm87'" in " ".join(result.output.split())
    assert not output.exists()
