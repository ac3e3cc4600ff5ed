"""Every kind of input, and the refusal of what is none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pargo_export.errors import ImageError, InputError
from pargo_export.preprocessing import PreprocessSpec, normalize
from pargo_export.runtime import Runtime
from pargo_export.runtime.inputs import InputReader
from pargo_export.signature import TensorSpec


@pytest.fixture(scope="module")
def picture(photos):
    """Return a photograph as an array, uint8 [300, 451, 3]."""
    with Image.open(photos[0]) as image:
        return np.asarray(image.convert("RGB"))


def _png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda path, _: str(path), id="str"),
        pytest.param(lambda path, _: path, id="Path"),
        pytest.param(lambda path, _: os.fsencode(path).decode(), id="fsdecoded"),
        pytest.param(lambda _, picture: picture, id="array"),
        pytest.param(lambda _, picture: picture[None], id="array with batch axis"),
        pytest.param(
            lambda _, picture: picture.transpose(2, 0, 1).copy().transpose(1, 2, 0), id="strided array"
        ),
        pytest.param(lambda _, picture: Image.fromarray(picture), id="PIL"),
        pytest.param(lambda _, picture: _png(picture), id="bytes"),
        pytest.param(lambda _, picture: bytearray(_png(picture)), id="bytearray"),
        pytest.param(lambda _, picture: memoryview(_png(picture)), id="memoryview"),
        pytest.param(lambda _, picture: io.BytesIO(_png(picture)), id="file object"),
    ],
)
def test_one_picture_in_any_form(runtime, photos, picture, convert):
    """A picture gives the same tokens whatever holds it, alone or in a list."""
    expected = runtime.encode([photos[0]])
    image = convert(photos[0], picture)
    for images in (image, [image], (image,)):
        assert np.array_equal(runtime.encode(images), expected)


def test_mixed_list_keeps_its_order(runtime, photos, picture):
    """Paths, images, arrays, bytes and normalised pixels of different sizes make one batch, in order."""
    normalised = runtime.preprocess(photos[1])[0]
    mixed = [photos[0], normalised, Image.fromarray(picture), normalised.astype(np.float64), _png(picture)]
    sources = [photos[0], photos[1], photos[0], photos[1], photos[0]]
    assert np.array_equal(runtime.encode(mixed), runtime.encode(sources))


def test_arrays_with_a_batch_axis_in_a_list_are_unpacked(runtime, photos, picture):
    """`[B, ...]` in a list counts as B images."""
    normalised = runtime.preprocess(photos[1:3])
    tokens = runtime.encode([picture[None], normalised])
    assert np.array_equal(tokens, runtime.encode(photos[:3]))


def test_grey_and_rgba_arrays_are_pictures(runtime, picture):
    """`[h, w]`, `[h, w, 1]` and `[h, w, 4]` are read as Pillow reads such images."""
    grey = picture[..., 0]
    as_image = runtime.encode(Image.fromarray(grey))
    assert np.array_equal(runtime.encode(grey), as_image)
    assert np.array_equal(runtime.encode(grey[..., None]), as_image)
    rgba = np.dstack([picture, np.full_like(grey, 128)])
    assert np.array_equal(runtime.encode(rgba), runtime.encode(Image.fromarray(rgba)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_are_converted(runtime, photos, dtype):
    """float16, float64 and other byte orders are rounded to float32, with and without a batch axis."""
    pixels = runtime.preprocess(photos[:2]).astype(dtype)
    expected = runtime.encode(pixels.astype(np.float32))
    assert np.array_equal(runtime.encode(pixels), expected)
    assert np.array_equal(runtime.encode(pixels[0]), runtime.encode(pixels.astype(np.float32)[:1]))


def test_strided_and_read_only_pixels_are_taken(runtime, photos):
    """Views that are not contiguous, or not writable, give the tokens of their copy."""
    pixels = runtime.preprocess(photos[:4])
    pixels.flags.writeable = False
    assert np.array_equal(runtime.encode(pixels[::-2]), runtime.encode(pixels[::-2].copy()))


def test_channels_first_uint8_of_the_input_size_is_prepared_pixels(runtime, picture):
    """uint8 `[3, H, W]` is decided by its shape: not a picture of height 3, but pixels to be normalised."""
    small = np.asarray(Image.fromarray(picture).resize((84, 84)))
    assert np.array_equal(runtime.encode(small.transpose(2, 0, 1)), runtime.encode(small))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"empty list"),
        ((), r"empty tuple"),
        (None, r"found NoneType, expected a path"),
        (7, r"found int"),
        (np.float32(7), r"found float32"),
        ([[np.zeros((8, 8, 3), np.uint8)]], r"images\[0\]: found list.*flat list"),
        ((x for x in "ab"), r"found generator"),
        ({"a": 1}, r"found dict"),
        (np.zeros((0, 3, 84, 84), np.float32), r"found float32\[0, 3, 84, 84\], expected at least one image"),
        (np.zeros((0, 5, 3), np.uint8), r"expected at least one image"),
        (
            np.zeros((1, 3, 84, 83), np.float32),
            r"found float32\[1, 3, 84, 83\], expected .*float32\[batch, 3, 84, 84\]",
        ),
        (np.zeros((84, 84, 3), np.float32), r"hand pictures"),
        (np.zeros((1, 1, 3, 84, 84), np.float32), r"found float32\[1, 1, 3, 84, 84\]"),
        (np.zeros((3, 84, 85), np.uint8), r"found uint8\[3, 84, 85\]"),
        (np.zeros((1, 3, 84, 84), np.int64), r"found int64.*convert the dtype"),
        (np.zeros((84, 84, 3), np.uint16), r"found uint16"),
        (np.zeros((1, 3, 84, 84), bool), r"found bool"),
        (np.zeros((1, 3, 84, 84), np.complex64), r"found complex64"),
        (np.array(["a.png"]), r"found <U5"),
        (np.array(None), r"found object"),
    ],
)
def test_what_is_no_input_is_refused(runtime, images, message):
    """The message says what was found and what to hand."""
    with pytest.raises(InputError, match=message):
        runtime.encode(images)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(runtime, photos, value, dtype):
    """The message says which image has them; a float64 too large for float32 counts."""
    pixels = runtime.preprocess(photos[:5]).astype(dtype)
    with np.errstate(over="ignore"):
        pixels[4, 1, 2, 3] = value
    for images in (pixels, list(pixels)):
        with pytest.raises(InputError, match=r"images\[4\]: found NaN"):
            runtime.encode(images)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 2000, 3), (3000, 1), (2500, 2500, 3), (84, 84, 4), (3, 3, 3)]
)
def test_odd_and_large_pictures(runtime, shape):
    """Any size from one pixel up gives finite tokens."""
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tokens = runtime.encode(picture)
    assert tokens.shape == (1, 22, 80)
    assert np.isfinite(tokens).all()


def test_file_that_does_not_exist_is_named(runtime):
    """A path is reported as it was given."""
    with pytest.raises(ImageError, match=r"no/such\.png: no such file"):
        runtime.encode(Path("no/such.png"))


SPEC = PreprocessSpec(height=84, width=84)
PIXELS = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 84, 84))


@pytest.mark.parametrize("as_list", [True, False])
def test_pixels_are_kept_for_a_device_that_normalises(picture, as_list):
    """Pictures and prepared pixels stay uint8 then; they are normalised only together with floats."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 84, 84), np.uint8)
    images = list(pixels) if as_list else pixels
    keeping, plain = (InputReader(PIXELS, "float", SPEC, keeps_uint8=keeps) for keeps in (True, False))
    kept = keeping.prepare(keeping.read(images), 0, 2)
    assert np.array_equal(kept, pixels)
    assert kept.dtype == np.uint8
    normalised = plain.prepare(plain.read(images), 0, 2)
    assert np.array_equal(normalised, normalize(pixels, SPEC))
    mixed = keeping.prepare(keeping.read([picture, normalised[0]]), 0, 2)
    assert mixed.dtype == np.float32
    assert np.array_equal(mixed[1], normalised[0])
    fitted = keeping.prepare(keeping.read(picture), 0, 1)
    assert fitted.dtype == np.uint8
    assert np.array_equal(normalize(fitted, SPEC)[0], mixed[0])


class _OnDevice:
    def __init__(self, dtype, *shape):
        self.dtype, self.shape = dtype, shape


@pytest.mark.parametrize(
    ("dtype", "shape", "takes", "keeps_uint8", "fits"),
    [
        ("torch.float32", (2, 3, 84, 84), "float", True, True),
        ("float16", (3, 84, 84), "float", False, True),
        ("torch.bfloat16", (1, 3, 84, 84), "float", True, True),
        ("torch.uint8", (1, 3, 84, 84), "float", True, True),
        ("torch.uint8", (1, 3, 84, 84), "float", False, False),
        ("torch.uint8", (1, 3, 84, 84), "uint8", False, True),
        ("torch.float32", (1, 3, 84, 84), "uint8", False, False),
        ("torch.int64", (1, 3, 84, 84), "float", True, False),
        ("torch.uint8", (300, 451, 3), "float", True, False),
        ("torch.float32", (0, 3, 84, 84), "float", True, False),
        ("torch.float32", (1, 3, 84, 80), "float", True, False),
        ("torch.float32", (1, 1, 3, 84, 84), "float", True, False),
        ("torch.float32", (), "float", True, False),
    ],
)
def test_what_a_graph_takes_from_a_device(dtype, shape, takes, keeps_uint8, fits):
    """Only what is ready for the graph; everything else is read on the host."""
    reader = InputReader(PIXELS, takes, SPEC, keeps_uint8=keeps_uint8)
    assert reader.fits_on_device(_OnDevice(dtype, *shape)) is fits


def test_the_search_for_nan_can_be_left_out(bundle_path):
    """Then they reach the graph, and the tokens show them; what is finite gives the same tokens."""
    pixels = np.zeros((1, 3, 84, 84), np.float32)
    with (
        Runtime.open(bundle_path, threads=1, check_finite=False) as runtime,
        Runtime.open(bundle_path, threads=1) as other,
    ):
        assert np.array_equal(runtime.encode(pixels), other.encode(pixels))
        pixels[0, 0, 5, 5] = np.nan
        assert np.isnan(runtime.encode(pixels)).any()
        with pytest.raises(InputError, match="NaN"):
            other.encode(pixels)
