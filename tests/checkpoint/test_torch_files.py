"""Files of `torch.save`: nothing in them runs, and a broken one says what it is."""

from __future__ import annotations

import argparse
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from checkpoint_samples import Calls, golden_tensors, save_torch

from pargo_export.checkpoint.torch_files import read_torch_file
from pargo_export.errors import CheckpointError, UnsafeCheckpointError

WEIGHTS = {"query_tokens": torch.arange(6.0).reshape(1, 2, 3)}


@pytest.mark.parametrize("new_format", [True, False])
def test_reads_both_formats_of_torch(tmp_path, new_format):
    """Zip files and the older plain format hold the same tensors."""
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=new_format)
    stored = read_torch_file(path).tensors["query_tokens"]
    assert (stored.shape, stored.dtype, stored.num_elements) == ((1, 2, 3), "float32", 6)
    assert torch.equal(stored.read(), WEIGHTS["query_tokens"])


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (WEIGHTS, "state dict"),
        ({"state_dict": WEIGHTS, "epoch": 3}, "state_dict"),
        ({"model": WEIGHTS}, "model"),
        ({"module": WEIGHTS}, "module"),
        ({"model": {"state_dict": WEIGHTS}}, "model/state_dict"),
    ],
)
def test_opens_containers(tmp_path, content, container):
    """The state dict is found in every container that the official loader knows."""
    source = read_torch_file(save_torch(tmp_path / "weights.pt", content))
    assert list(source.tensors) == ["query_tokens"]
    assert source.container == container


def test_reports_what_else_a_file_holds(tmp_path):
    """Entries that are no tensors are named in a note."""
    content = {"state_dict": WEIGHTS | {"version": 2}, "optimizer": {"lr": 0.1}}
    source = read_torch_file(save_torch(tmp_path / "weights.pt", content))
    assert "optimizer, version" in source.notes[0]


@pytest.mark.parametrize("call", [Calls.system, Calls.eval])
@pytest.mark.parametrize("nest", [lambda evil: evil, lambda evil: {"state_dict": WEIGHTS, "hparams": [evil]}])
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_refuses_calls_in_a_torch_file(tmp_path, call, nest, new_format, protocol):
    """A call hidden at any depth of either format and protocol is named and not made."""
    marker, path = tmp_path / "called", tmp_path / "evil.pt"
    torch.save(nest(call(marker)), path, pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnsafeCheckpointError, match=r"would call (posix\.system|builtins\.eval).*state dict"):
        read_torch_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_refuses_calls_in_a_plain_pickle(tmp_path, protocol):
    """A pickle of any protocol that calls is refused by name."""
    marker, path = tmp_path / "called", tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps({"a": "padding", "b": Calls.system(marker)}, protocol=protocol))
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system"):
        read_torch_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("new_format", [True, False])
def test_unusual_pickle_protocol(tmp_path, new_format):
    """Harmless tensors under a protocol that the safe loader cannot parse: the mend is to save them again."""
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path, pickle_protocol=4, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match="save it again without pickle_protocol"):
        read_torch_file(path)


def test_refuses_objects_that_are_not_tensors(tmp_path):
    """Training arguments saved as an object need code too; every such class is named."""
    content = {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "path": Path("a")}
    with pytest.raises(UnsafeCheckpointError, match=r"argparse\.Namespace, pathlib"):
        read_torch_file(save_torch(tmp_path / "weights.pth", content))


def test_refuses_torchscript(tmp_path):
    """A TorchScript archive is code; the mend is said."""
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # recent versions discourage TorchScript
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        read_torch_file(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_truncated_file(tmp_path, new_format, fraction):
    """A file cut anywhere is refused with what was found and how to mend it."""
    path = tmp_path / "weights.pt"
    torch.save(golden_tensors("mlp"), path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(CheckpointError, match=r"found an? .*expected a complete file.*copy or download"):
        read_torch_file(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_damaged_bytes(tmp_path, new_format):
    """A file with any one damaged byte near its start opens or is refused, and never fails in another way."""
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    num_refused = 0
    for position in range(min(len(content), 700)):
        damaged = bytearray(content)
        damaged[position] ^= 0xA5
        path.write_bytes(damaged)
        try:
            read_torch_file(path)
        except CheckpointError:
            num_refused += 1
    assert num_refused > 100


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"just some words\n", "text that starts with 'just some words"),
        (bytes(range(1, 60)), "unknown content"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip"),
    ],
)
def test_other_content(tmp_path, content, what):
    """Something that is no checkpoint is described."""
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=what):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([torch.ones(2)], "found a list"),
        (torch.ones(2), "found a Tensor"),
        ({1: torch.ones(2)}, "expected a state dict"),
        ({"epoch": 3}, "without tensors .it holds epoch"),
        ({}, "without tensors .it holds nothing"),
        ({"model": WEIGHTS, "module": WEIGHTS}, "model and module side by side"),
    ],
)
def test_no_state_dict(tmp_path, content, what):
    """A readable file without one state dict says what it holds."""
    with pytest.raises(CheckpointError, match=what):
        read_torch_file(save_torch(tmp_path / "weights.pt", content))
