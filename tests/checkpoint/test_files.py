"""Which files make a checkpoint: single files, indices with shards, directories."""

from __future__ import annotations

import json

import pytest
import torch
from checkpoint_samples import Calls, golden_tensors, save_index, save_safetensors, save_torch

from pargo_export.checkpoint.files import open_source
from pargo_export.errors import CheckpointError, UnsafeCheckpointError


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "PT", "safetensors"])
def test_single_files(tmp_path, suffix):
    """Every known suffix opens, in any case."""
    save = save_safetensors if suffix == "safetensors" else save_torch
    source = open_source(save(tmp_path / f"weights.{suffix}", golden_tensors("mlp")))
    assert set(source.tensors) == set(golden_tensors("mlp"))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("by_directory", [True, False])
def test_shards(tmp_path, suffix, by_directory):
    """An index opens by its path or by its directory, and every tensor is the right one."""
    tensors = golden_tensors("mlp")
    index = save_index(tmp_path, tensors, suffix=suffix)
    source = open_source(tmp_path if by_directory else index)
    assert source.container == "3 shards"
    assert len(source.files) == 4
    assert all(torch.equal(source.tensors[key].read(), tensor) for key, tensor in tensors.items())


def test_directory_with_one_file_and_trainer_state(tmp_path):
    """What a trainer leaves beside the weights is no candidate."""
    save_torch(tmp_path / "pytorch_model.bin", golden_tensors("mlp"))
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth"):
        save_torch(tmp_path / name, {})
    assert open_source(tmp_path).files == (tmp_path / "pytorch_model.bin",)


def test_ambiguous_directory(tmp_path):
    """Several candidates are listed."""
    for name in ("a.pt", "b.pt"):
        save_torch(tmp_path / name, golden_tensors("mlp"))
    save_index(tmp_path, golden_tensors("mlp"))
    with pytest.raises(
        CheckpointError, match=r"several checkpoints \(model.safetensors.index.json, a.pt, b.pt\)"
    ):
        open_source(tmp_path)


@pytest.mark.parametrize("name", [None, "readme.md"])
def test_directory_without_checkpoint(tmp_path, name):
    """A directory without a checkpoint says what it holds."""
    if name:
        (tmp_path / name).write_text("hello", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"no checkpoint in the directory .{name or 'nothing'}"):
        open_source(tmp_path)


def test_missing_and_unknown_files(tmp_path):
    """A missing path and an unknown suffix are told apart."""
    with pytest.raises(CheckpointError, match="no such file or directory"):
        open_source(tmp_path / "absent.pt")
    (tmp_path / "weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"suffix '\.npz'"):
        open_source(tmp_path / "weights.npz")


def test_corrupt_safetensors(tmp_path):
    """Truncation at several points, an empty file and text are refused with what was found."""
    path = save_safetensors(tmp_path / "weights.safetensors", golden_tensors("mlp"))
    content = path.read_bytes()
    for cut in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"expected a complete safetensors file; copy or download"):
            open_source(path)
    path.write_text("not a checkpoint\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="text that starts with"):
        open_source(path)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/x.safetensors", "a/../../x.bin", "..\\x.bin", "C:\\x.bin", "\\x.bin"],
)
def test_index_must_not_escape(tmp_path, name):
    """A shard outside the directory of its index is refused before anything is opened."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"query_tokens": name}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="expected a file in its own directory"):
        open_source(index)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "no weight_map"),
        ('{"weight_map": {"a": 1}}', "no weight_map"),
        ('{"weight_map": {"a": "absent.bin"}}', "0 of 1 shards, missing: absent.bin"),
        ('{"weight_map": {"a": "pytorch_model.bin.index.json"}}', r"expected \.bin"),
    ],
)
def test_broken_index(tmp_path, content, what):
    """A broken index says what is wrong with it."""
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=what):
        open_source(index)


def test_unsafe_shard(tmp_path):
    """Code in any one shard is refused."""
    index = save_index(tmp_path, golden_tensors("mlp"), suffix="bin")
    save_torch(tmp_path / "pytorch_model-00002-of-00003.bin", {"a": Calls.system(tmp_path / "called")})
    with pytest.raises(UnsafeCheckpointError, match=r"00002-of-00003\.bin: refused.*posix\.system"):
        open_source(index)
    assert not (tmp_path / "called").exists()


def test_index_and_shards_must_agree(tmp_path):
    """Tensors that only one of index and shard knows are named."""
    index = save_index(tmp_path, golden_tensors("mlp"))
    content = json.loads(index.read_text("utf-8"))
    content["weight_map"]["extra"] = content["weight_map"].pop("llm_proj.0.bias")
    index.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"extra is not in model-.*llm_proj.0.bias in .* is not in the index"
    ):
        open_source(index)
