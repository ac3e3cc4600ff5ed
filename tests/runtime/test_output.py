"""Files of visual tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from pargo_export import errors
from pargo_export._version import __version__
from pargo_export.bundle import sha256_bytes, sha256_file
from pargo_export.runtime import describe_provenance, write_tokens

ARRAYS = {
    "visual_tokens": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "file": np.ones((2, 2), np.float32)[:, :1],
}
METADATA = {"variant": "fp32", "images": json.dumps(["Straße.jpg"], ensure_ascii=False)}


def _read_safetensors(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - not a mapping


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("__metadata__")))


@pytest.mark.parametrize(
    ("name", "read"),
    [("out.safetensors", _read_safetensors), ("out.npz", _read_npz), ("out.b.NPZ", _read_npz)],
)
def test_arrays_and_metadata_are_read_back(tmp_path, name, read):
    """Any reader of the format finds the names, shapes, values and the provenance."""
    path = write_tokens(tmp_path / name, ARRAYS, METADATA)
    arrays, metadata = read(path)
    assert metadata == METADATA
    assert arrays.keys() == ARRAYS.keys()
    for key, array in arrays.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, ARRAYS[key])
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_npz_has_the_same_bytes_every_time(tmp_path):
    """No time of writing in the file."""
    files = [write_tokens(tmp_path / name, ARRAYS, METADATA) for name in ("a.npz", "b.npz")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_provenance_says_where_tokens_come_from(runtime):
    """Bundle, graph, variant, backend, images and version are named."""
    metadata = describe_provenance(runtime, ["a.jpg", "b.jpg"])
    assert metadata["bundle_sha256"] == sha256_bytes((runtime.bundle.path / "manifest.json").read_bytes())
    assert metadata["graph_sha256"] == sha256_file(runtime.bundle.path / "onnx" / "fp32.onnx")
    assert json.loads(metadata["images"]) == ["a.jpg", "b.jpg"]
    assert json.loads(metadata["outputs"]) == {
        "visual_tokens": {"dtype": "float32", "axes": ["batch", 22, 80]}
    }
    assert {metadata[key] for key in ("variant", "backend", "component", "precision", "pargo_export_version")} == {
        "fp32", "onnxruntime", "all", "float32", __version__,
    }  # fmt: skip


def test_existing_file_is_kept_unless_told(tmp_path):
    """Overwriting has to be allowed."""
    path = tmp_path / "out.npz"
    path.write_bytes(b"precious")
    with pytest.raises(errors.InputError, match=r"out\.npz exists"):
        write_tokens(path, ARRAYS, METADATA)
    assert path.read_bytes() == b"precious"
    write_tokens(path, ARRAYS, METADATA, overwrite=True)
    assert _read_npz(path)[1] == METADATA


@pytest.mark.parametrize("name", ["out.pt", "out", "out.npy", "npz"])
def test_unknown_suffix_names_the_known_ones(tmp_path, name):
    """Nothing is written."""
    with pytest.raises(errors.InputError, match=r"unknown suffix .*use \.safetensors or \.npz"):
        write_tokens(tmp_path / name, ARRAYS, METADATA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arrays", [{}, {"__metadata__": np.zeros(1)}])
def test_no_arrays_and_the_reserved_name_are_refused(tmp_path, arrays):
    """There must be something to write, and the metadata must not be shadowed."""
    with pytest.raises(errors.InputError, match="expected at least one"):
        write_tokens(tmp_path / "out.npz", arrays, METADATA)


def test_unwritable_directory_is_reported(tmp_path):
    """The operating system's reason is in the message."""
    with pytest.raises(errors.PargoExportError, match=r"cannot be written.*check that the directory exists"):
        write_tokens(tmp_path / "missing" / "out.npz", ARRAYS, METADATA)
