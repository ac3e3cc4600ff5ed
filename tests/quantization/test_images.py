"""From files to pixels: which images are used, which are left out, and why."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from quantization.samples import write_photographs

from pargo_calibration import open_source
from pargo_export.errors import CalibrationError
from pargo_export.preprocessing import PreprocessSpec, normalize, preprocess, preprocess_uint8
from pargo_export.quantization.images import ImageStream

SPEC = PreprocessSpec(height=28, width=28)
MODES = ("pad", "resize", "square-resize")


def stream_of(path, seed=0, shard=(0, 1), spec=SPEC):
    """Return a stream of what lies at a path."""
    return ImageStream(open_source(path), spec, seed, shard)


def save(path, picture, **options):
    """Write a picture and return its path."""
    Image.fromarray(picture).save(path, **options)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_pictures_are_prepared_as_the_bundle_says(photographs, mode):
    """Each file gives exactly what the device would compute from it."""
    spec = PreprocessSpec(height=28, width=42, mode=mode)
    pictures = list(stream_of(photographs, spec=spec))
    assert len(pictures) == 16
    for picture in pictures:
        path = photographs / picture.name
        assert np.array_equal(picture.pixels, preprocess_uint8([path], spec)[0])
        assert np.array_equal(picture.values(spec), preprocess([path], spec))


def test_turned_pictures_are_upright(tmp_path):
    """The EXIF orientation is applied, once."""
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:10] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", picture, exif=exif)
    (found,) = stream_of(path)
    assert np.array_equal(found.pixels, preprocess_uint8([path], SPEC)[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("shape", [(30, 30), (20, 50)])
def test_one_colour_is_left_out(tmp_path, mode, color, shape):
    """Even where padding adds a border of another colour."""
    save(tmp_path / "flat.png", np.full((*shape, 3), color, np.uint8))
    stream = stream_of(tmp_path, spec=PreprocessSpec(height=28, width=28, mode=mode))
    assert list(stream) == []
    assert stream.skipped == [("flat.png", "every pixel has the same colour")]


def test_what_is_left_out_is_listed(tmp_path):
    """Damaged, repeated and flat pictures, each under its own name with the reason."""
    write_photographs(tmp_path)
    content = (tmp_path / "coffee-0.png").read_bytes()
    (tmp_path / "copy.png").write_bytes(content)
    (tmp_path / "cut.png").write_bytes(content[:1000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    save(tmp_path / "black.png", np.zeros((30, 40, 3), np.uint8))
    stream = stream_of(tmp_path)
    pictures = list(stream)
    reasons = dict(stream.skipped)
    assert len(pictures) == 16
    assert stream.num_seen == 21
    assert set(reasons) - {"copy.png", "coffee-0.png"} == {"cut.png", "text.jpg", "empty.png", "black.png"}
    assert len(reasons) == 5
    assert any(reason.startswith("the same content as ") for reason in reasons.values())
    for name, reason in reasons.items():
        assert reason
        assert not reason.startswith(name)  # the name is said once
        assert "images[0]" not in reason


def test_pixels_are_taken_as_they_are(tmp_path):
    """uint8 is normalised by the bundle's rule, float32 is normalised already."""
    levels = np.random.default_rng(1).integers(0, 256, (3, 3, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "levels.npz", pixel_values=levels)
    np.savez(tmp_path / "floats.npz", pixel_values=normalize(levels, SPEC))
    for name in ("levels.npz", "floats.npz"):
        found = {picture.name: picture for picture in stream_of(tmp_path / name)}
        assert len(found) == 3
        for index in range(3):
            values = found[f"{name}:{index}"].values(SPEC)
            assert values.dtype == np.float32
            assert np.array_equal(values, normalize(levels[index : index + 1], SPEC))


def test_pixels_of_another_size_are_refused(tmp_path):
    """They cannot be fitted, so the whole file is the wrong one."""
    np.savez(tmp_path / "big.npz", pixel_values=np.eye(30, dtype=np.float32)[None, None].repeat(3, 1))
    with pytest.raises(
        CalibrationError, match=r"big\.npz:0: found pixels float32\[3, 30, 30\], expected \[3, 28, 28\]"
    ):
        list(stream_of(tmp_path / "big.npz"))


def test_pixels_that_say_nothing_are_left_out(tmp_path):
    """One colour, NaN and infinity."""
    values = np.random.default_rng(2).standard_normal((4, 3, 28, 28)).astype(np.float32)
    values[0] = np.array([0.5, -1, 2], np.float32)[:, None, None]
    values[1, 0, 3, 3] = np.nan
    values[2, 2, 1, 1] = -np.inf
    np.savez(tmp_path / "some.npz", pixel_values=values)
    stream = stream_of(tmp_path / "some.npz")
    assert [picture.name for picture in stream] == ["some.npz:3"]
    reasons = dict(stream.skipped)
    assert reasons["some.npz:0"] == "every pixel has the same colour"
    assert all("NaN or infinite" in reasons[f"some.npz:{index}"] for index in (1, 2))


def test_seed_decides_the_order(photographs):
    """The same seed gives the same order; another one another, of the same images."""
    orders = [[picture.sha256 for picture in stream_of(photographs, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[1]) == sorted(orders[2])


def test_shards_share_nothing(photographs):
    """Together they are the whole."""
    parts = [{picture.sha256 for picture in stream_of(photographs, shard=(index, 3))} for index in range(3)]
    whole = {picture.sha256 for picture in stream_of(photographs)}
    assert sum(map(len, parts)) == len(whole) == 16
    assert set.union(*parts) == whole


def test_reading_again_starts_over(photographs):
    """The list of what was left out is that of the last pass."""
    stream = stream_of(photographs)
    assert [picture.name for picture in stream] == [picture.name for picture in stream]
    assert stream.skipped == []
    assert stream.num_seen == 16
