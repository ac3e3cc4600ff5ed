"""Batches of pixels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tolerances import TOLERANCES

from pargo_export import preprocessing
from pargo_export.errors import ImageError, InputError
from pargo_export.preprocessing import PreprocessSpec, load_image, normalize, preprocess, preprocess_uint8

SPEC = PreprocessSpec(height=28, width=42)


def test_batch_keeps_the_order_of_its_pictures(photo_path, cat):
    """Sources of different kinds and sizes become one batch, each the same as alone."""
    sources = [photo_path("rocket.jpg"), photo_path("coffee.png").read_bytes(), cat]
    batch = preprocess(sources, SPEC)
    assert batch.shape == (3, 3, 28, 42)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    for index, source in enumerate(sources):
        assert np.array_equal(batch[index], preprocess((source,), SPEC)[0])


def test_uint8_pixels_are_red_green_blue_rows(cat):
    """At its own size a picture goes through unchanged, channels first."""
    spec = PreprocessSpec(mode="resize", height=60, width=90)
    pixels = preprocess_uint8([cat], spec)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels[0], cat.transpose(2, 0, 1))


def test_normalisation_follows_its_formula(cat):
    """In float64 the formula gives the same values to float32 rounding."""
    spec = PreprocessSpec(height=60, width=90, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    pixels = np.asfortranarray(cat.transpose(2, 0, 1)[None])
    expected = (pixels / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
    found = normalize(pixels, spec)
    assert found.flags.c_contiguous
    assert np.abs(found - expected).max() <= 2 * TOLERANCES["preprocess-lossless"].value


def test_padding_is_near_zero_after_normalisation(photo_path):
    """The pad colour is the mean to an 8-bit level, so padding is close to zero and never above it."""
    border = preprocess([photo_path("coffee.png")], PreprocessSpec(height=336, width=84))[0, :, 0]
    assert (border <= 0).all()
    assert (border > -1 / 255 / 0.26).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 3, 28, 42), np.float32),
        np.zeros((3, 28, 42), np.uint8),
        np.zeros((1, 28, 42, 3), np.uint8),
        np.zeros((1, 3, 42, 28), np.uint8),
    ],
)
def test_normalize_refuses_other_arrays(pixels):
    """Dtype and shape found and expected are named."""
    with pytest.raises(InputError, match=r"found \w+\[.*\], expected uint8\[batch, 3, 28, 42\]"):
        normalize(pixels, SPEC)


def test_one_picture_is_not_a_batch(photo_path, cat):
    """A path or an array in place of the list is refused instead of read piece by piece."""
    path = photo_path("rocket.jpg")
    for source in (path, str(path), b"bytes", bytearray(b"bytes"), load_image(path), cat):
        with pytest.raises(InputError, match=rf"one {type(source).__name__}, expected a list"):
            preprocess(source, SPEC)


def test_empty_batch():
    """A batch has at least one picture."""
    with pytest.raises(InputError, match="empty list"):
        preprocess([], SPEC)


def test_messages_name_the_picture(cat, tmp_path):
    """A path is named by itself, anything else by its place in the batch."""
    with pytest.raises(ImageError, match=r"^images\[1\]: empty"):
        preprocess([cat, b""], SPEC)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        preprocess([cat, tmp_path / "none.png"], SPEC)
    with pytest.raises(InputError, match=r"^images\[1\]: found float64\[60, 90, 3\]"):
        preprocess([cat, cat / 255], SPEC)
    square = PreprocessSpec(mode="square-resize", height=28, width=28)
    with pytest.raises(ImageError, match=r"^images\[0\]: 20000x1 pixels; fitted"):
        preprocess([np.zeros((1, 20_000), np.uint8)], square)


def test_public_names():
    """The public names are sorted and exist."""
    assert preprocessing.__all__ == sorted(preprocessing.__all__)
    assert all(hasattr(preprocessing, name) for name in preprocessing.__all__)


def test_import_is_light():
    """A device needs no framework to prepare pictures."""
    heavy = "{'torch', 'torchvision', 'onnx', 'onnxruntime', 'scipy', 'skimage'}"
    code = f"import sys, pargo_export.preprocessing; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
