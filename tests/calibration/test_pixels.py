"""Pixel arrays are read one image at a time, and never run code."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from pargo_calibration import CalibrationDataError, open_source


@pytest.fixture
def pixels():
    """Three images `[3, 3, 4, 5]`."""
    return np.random.default_rng(0).integers(0, 256, (3, 3, 4, 5), np.uint8)


def save(path, **arrays):
    """Write arrays in the form that the suffix says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


def contents(source):
    """Contents of all entries, stacked."""
    return np.stack([source.load(entry).content for entry in source.entries()])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_reads_each_image(tmp_path, pixels, suffix, dtype):
    """Both types in both files, by name among others or as the only array."""
    pixels = pixels.astype(dtype)
    for names in ({"pixel_values": pixels, "labels": np.zeros(3)}, {"images": pixels}):
        source = open_source(save(tmp_path / f"data{suffix}", **names))
        assert source.kind == "pixels"
        assert [entry.name for entry in source.entries()] == [f"data{suffix}:{index}" for index in range(3)]
        found = contents(source)
        assert found.dtype == dtype
        assert np.array_equal(found, pixels)


def test_npz_is_mapped_not_loaded(tmp_path, pixels):
    """A plain file stays on disk, behind any other array in it; a compressed one is held whole and is equal."""
    plain = save(tmp_path / "plain.npz", other=np.ones(1000), pixel_values=pixels)
    content = open_source(plain).load(open_source(plain).entries()[1]).content
    base = content
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    np.savez_compressed(tmp_path / "packed.npz", pixel_values=pixels)
    assert np.array_equal(contents(open_source(tmp_path / "packed.npz")), pixels)


def test_layout_of_the_file_does_not_matter(tmp_path, pixels):
    """Columns first and big-endian numbers are the same images with the same hashes."""
    pixels = pixels.astype(np.float32)
    expected = open_source(save(tmp_path / "a.npz", pixel_values=pixels))
    for name, array in (("b", np.asfortranarray(pixels)), ("c", pixels.astype(">f4"))):
        source = open_source(save(tmp_path / f"{name}.npz", pixel_values=array))
        assert np.array_equal(contents(source), pixels)
        hashes = [[found.load(entry).sha256 for entry in found.entries()] for found in (source, expected)]
        assert hashes[0] == hashes[1]


def test_the_hash_knows_type_and_shape(tmp_path):
    """Equal bytes of another shape or type are another image."""
    arrays = [
        np.zeros((1, 3, 2, 8), np.uint8),
        np.zeros((1, 3, 8, 2), np.uint8),
        np.zeros((1, 3, 2, 2), np.float32),
    ]
    sources = [open_source(save(tmp_path / f"{n}.npz", pixel_values=array)) for n, array in enumerate(arrays)]
    assert len({source.load(source.entries()[0]).sha256 for source in sources}) == 3


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((1, 3, 2, 2), np.uint8), "b": np.zeros(2)}, r"found the arrays \['a', 'b'\]"),
        ({"a": np.zeros((1, 2, 2, 3), np.uint8)}, r"found uint8\[1, 2, 2, 3\]"),
        ({"a": np.zeros((3, 2, 2), np.uint8)}, r"found uint8\[3, 2, 2\]"),
        ({"a": np.zeros((0, 3, 2, 2), np.uint8)}, r"found uint8\[0, 3, 2, 2\]"),
        ({"a": np.zeros((1, 3, 2, 2))}, "found (float64|F64)"),
    ],
)
def test_refuses_other_arrays(tmp_path, suffix, arrays, message):
    """The message says what was found, and the type and shape expected."""
    with pytest.raises(CalibrationDataError, match=message + ".*expected an array 'pixel_values'"):
        open_source(save(tmp_path / f"data{suffix}", **arrays))


def test_never_unpickles(tmp_path):
    """An array of objects is refused before its pickle is looked at, compressed or not."""

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    bomb = np.full((1, 3, 1, 1), Bomb())
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "bomb.npz", pixel_values=bomb)
        with pytest.raises(CalibrationDataError, match="found object"):
            open_source(tmp_path / "bomb.npz")


def test_nan_is_reported(tmp_path):
    """An image with a pixel that is no number is unreadable, the others are not."""
    pixels = np.zeros((2, 3, 2, 2), np.float32)
    pixels[1, 0, 0, 0] = np.nan
    source = open_source(save(tmp_path / "a.npz", pixel_values=pixels))
    assert source.load(source.entries()[0])
    with pytest.raises(CalibrationDataError, match=r"a.npz:1: found NaN"):
        source.load(source.entries()[1])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, pixels, suffix):
    """Cut, empty or something else."""
    path = save(tmp_path / f"a{suffix}", pixel_values=pixels)
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:20], b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(CalibrationDataError, match=r"cannot be read .*make the file again"):
            open_source(path)


def test_a_damaged_header_inside_is_refused(tmp_path):
    """A zip member that is no array."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pixel_values.npy", b"no array at all")
    with pytest.raises(CalibrationDataError, match="cannot be read"):
        open_source(path)
