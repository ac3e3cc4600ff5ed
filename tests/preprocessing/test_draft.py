"""JPEGs decoded at a fraction of their size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pargo_export.preprocessing import PreprocessSpec, fit_to_input, load_image
from pargo_export.preprocessing.draft import draft

SPEC = PreprocessSpec(height=40, width=40)


def opened(width, height, file_format="JPEG", **options):
    """Return an opened, not decoded picture."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 60)).save(file, file_format, **options)
    return Image.open(file)


def with_orientation(number):
    """Return EXIF data that say so."""
    exif = Image.Exif()
    exif[0x0112] = number
    return {"exif": exif}


@pytest.mark.parametrize(
    ("size", "mode", "scale"),
    [
        ((640, 640), "pad", 8),  # 80 are left, twice what is needed
        ((632, 632), "pad", 4),
        ((320, 640), "pad", 8),  # fitted to 20 x 40
        ((320, 640), "resize", 4),  # fitted to 40 x 40
        ((644, 640), "pad", 4),  # 8 does not divide 644
        ((641, 640), "pad", 1),
        ((100, 100), "pad", 1),
        ((1600, 1600), "pad", 8),
        ((1600, 1600), "square-resize", 1),
        ((3584, 3584), "official-eval", 4),  # 448 pixels on its canvas
    ],
)
def test_the_scale_leaves_twice_what_is_needed(size, mode, scale):
    """And divides both sides, so that the picture stays where it is."""
    image = opened(*size)
    assert draft(image, SPEC.model_copy(update={"mode": mode})) == scale
    assert image.size == (size[0] // scale, size[1] // scale)
    image.load()


def test_a_picture_on_its_side_is_measured_upright():
    """The canvas is wide: 320 x 640 stored is 640 x 320 shown, and fills it."""
    spec = PreprocessSpec(height=40, width=80)
    assert draft(opened(320, 640), spec) == 8  # 20 x 40 shown
    assert draft(opened(320, 640, **with_orientation(6)), spec) == 4  # 80 x 40 shown
    assert draft(opened(320, 640, **with_orientation(3)), spec) == 8


def test_other_formats_are_left_alone():
    """A PNG has no smaller version inside."""
    assert draft(opened(640, 640, "PNG"), SPEC) == 1


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("mode", ["pad", "resize", "official-eval"])
def test_the_picture_lands_on_the_same_pixels(photo_path, mode, orientation):
    """A smooth photograph gives nearly the same input; moved by half a pixel it would not."""
    is_official = mode == "official-eval"  # its canvas is large, and the picture does not begin at its corner
    height, width = (168, 168) if is_official else (28, 42)
    spec = PreprocessSpec(mode=mode, height=height, width=width)
    with Image.open(photo_path("coffee.png")) as photo:
        size = (1920, 1280) if is_official else (1200, 800)
        large = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=95, **with_orientation(orientation))
    full, drafted = (
        np.asarray(fit_to_input(load_image(file, draft_for=draft_for), spec), np.float32)
        for draft_for in (None, spec)
    )
    difference = np.abs(full - drafted)
    moved = np.abs(full[:, 1:] - full[:, :-1]).mean() / 2
    assert 0 < difference.mean() < 0.5 < moved / 2
    assert difference.max() <= 6


def test_by_default_nothing_is_drafted(photo_path):
    """What the export saw is what the device sees, unless somebody asks for less."""
    file = io.BytesIO()
    Image.new("RGB", (640, 640)).save(file, "JPEG")
    assert load_image(file).size == (640, 640)
    assert load_image(file, draft_for=SPEC).size == (80, 80)
    assert load_image(photo_path("rocket.jpg"), draft_for=SPEC).size == (640, 427)  # 427 is odd
