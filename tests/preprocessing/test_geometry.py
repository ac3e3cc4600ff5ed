"""Every mode fits every size, and puts the pad colour only where it belongs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pargo_export.errors import ImageError
from pargo_export.preprocessing import PreprocessSpec, fit_to_input, load_image, preprocess
from pargo_export.preprocessing.geometry import expand_and_resize, resize, resize_and_pad

GREEN = (0, 255, 0)
MODES = ["pad", "resize", "resize-bilinear", "square-resize", "center-crop", "official-eval"]
side = st.integers(1, 120)
few = settings(max_examples=60, deadline=None)


def white(width, height):
    """Return a white picture: bicubic weights sum to one, so it stays white wherever it is resized."""
    return Image.new("RGB", (width, height), (255, 255, 255))


@few
@given(st.sampled_from(MODES), side, side, side, side)
def test_output_has_the_input_size_of_the_model(mode, width, height, input_width, input_height):
    """Any picture fits any input, square or not."""
    spec = PreprocessSpec(mode=mode, height=input_height, width=input_width)
    assert fit_to_input(white(width, height), spec).size == (input_width, input_height)


@few
@given(side, side, side, side)
def test_pad_keeps_the_aspect_ratio_in_a_centred_box(width, height, input_width, input_height):
    """The picture fills one side, the other side is proportional within a pixel, the rest is pad colour."""
    pixels = np.asarray(resize_and_pad(white(width, height), input_height, input_width, GREEN))
    picture = (pixels == 255).all(axis=2)
    rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    assert picture[box].all()
    assert picture.sum() == len(rows) * len(columns)
    assert (pixels[~picture] == GREEN).all()
    assert rows[0] == (input_height - len(rows)) // 2
    assert columns[0] == (input_width - len(columns)) // 2
    ratio = min(input_width / width, input_height / height)
    assert abs(len(columns) - width * ratio) <= 1
    assert abs(len(rows) - height * ratio) <= 1


@few
@given(side, side, side, side)
def test_expansion_has_the_aspect_ratio_of_the_input(width, height, input_width, input_height):
    """Square-resize centres the whole picture on the smallest canvas of the input's aspect ratio."""
    aspect = Fraction(input_width, input_height)
    rows, columns = max(height, round(width / aspect)), max(width, round(height * aspect))
    assert rows == height or columns == width
    canvas = np.full((rows, columns, 3), GREEN, np.uint8)
    top, left = (rows - height) // 2, (columns - width) // 2
    canvas[top : top + height, left : left + width] = 255
    expected = resize(Image.fromarray(canvas), input_height, input_width)
    found = expand_and_resize(white(width, height), input_height, input_width, GREEN)
    assert found.tobytes() == expected.tobytes()


def test_expansion_of_a_square_is_a_plain_resize(photo_path):
    """A square picture on a square input needs no expansion."""
    image = load_image(photo_path("astronaut.png"))
    assert expand_and_resize(image, 84, 84, GREEN).tobytes() == resize(image, 84, 84).tobytes()


@pytest.mark.parametrize("file", ["coffee.png", "rocket.jpg"])
def test_resizing_is_bicubic_with_antialiasing(photo_path, file):
    """A wide photograph shrinks as Pillow's bicubic filter shrinks it, not as another filter does."""
    image = load_image(photo_path(file))
    found = resize(image, 50, 70)
    assert found.tobytes() == image.resize((70, 50), Image.Resampling.BICUBIC).tobytes()
    for other in (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS):
        assert found.tobytes() != image.resize((70, 50), other).tobytes()


@pytest.mark.parametrize("size", [(336, 336), (224, 300)])
def test_official_evaluation_sees_the_top_left_of_its_canvas(photo_path, size):
    """Official-eval is the corner of what pad gives for a 448 x 448 input."""
    height, width = size
    canvas = preprocess([photo_path("coffee.png")], PreprocessSpec(height=448, width=448))
    spec = PreprocessSpec(mode="official-eval", height=height, width=width)
    found = preprocess([photo_path("coffee.png")], spec)
    assert np.array_equal(found, canvas[:, :, :height, :width])


@pytest.mark.parametrize("size", [(1, 1), (300_000, 1), (1, 5_000)])
def test_extreme_pictures_keep_at_least_one_pixel(size):
    """A picture as thin as one pixel is still seen after padding."""
    pixels = np.asarray(fit_to_input(white(*size), PreprocessSpec(height=84, width=84)))
    assert (pixels == 255).all(axis=2).any()


@pytest.mark.parametrize(
    ("mode", "size", "grown"),
    [("square-resize", (30_000, 1), "30000x30000"), ("resize", (1, 2_000_000), "84x2000000")],
)
def test_growth_on_the_way_is_limited(mode, size, grown):
    """A long and thin picture that would fill the memory while it is fitted is refused."""
    spec = PreprocessSpec(mode=mode, height=84, width=84)
    with pytest.raises(ImageError, match=rf"^thin: {size[0]}x{size[1]} pixels; .* {grown} .*use mode 'pad'"):
        fit_to_input(white(*size), spec, name="thin")
