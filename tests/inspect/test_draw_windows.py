from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pargo_export.assets import PHOTOGRAPH
from pargo_export.checkpoint.presets import preset
from pargo_export.errors import ImageError
from pargo_export.inspect import draw_windows
from pargo_export.inspect.draw_windows import window_owners
from pargo_export.model.masks import cross_attention_keep
from pargo_export.preprocessing import PreprocessSpec

TINY = preset("tiny")


def _spec(config):
    height, width = config.input_size
    return PreprocessSpec(height=height, width=width)


def test_owners_follow_the_mask():
    """In one tile the owner of a patch is the partial token whose mask row keeps it."""
    keep = cross_attention_keep(18, 4, 36)[:18]
    np.testing.assert_array_equal(window_owners(TINY).ravel(), keep.argmax(axis=0))


def test_owners_of_tiles():
    """Image tokens run through one tile before the next, so the right half starts where the left one ends."""
    owners = window_owners(TINY.with_tiles(1, 2))
    assert owners.shape == (6, 12)
    assert (owners[:, :6] < 9).all()
    assert (owners[:, 6:] >= 9).all()


def test_picture_has_the_geometry_of_the_input():
    """The photograph is drawn as the model sees it, enlarged, with white lines between windows."""
    picture = draw_windows(TINY, _spec(TINY), PHOTOGRAPH)
    assert picture.size == (168, 168)
    pixels = np.asarray(picture)
    assert (pixels[:, 56] == 255).all()  # W = 2 patches of 28 pixels
    assert not (pixels[:, 28] == 255).all()


def test_nothing_to_draw_without_partial_tokens():
    """A Q-Former has no windows."""
    config = preset("tiny-qformer")
    assert draw_windows(config, _spec(config), PHOTOGRAPH) is None


def test_broken_photograph_is_named(tmp_path):
    """A file that is no picture is an error that names it."""
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        draw_windows(TINY, _spec(TINY), path)


def test_any_picture_will_do():
    """Pillow images are taken too."""
    assert draw_windows(TINY, _spec(TINY), Image.new("RGB", (30, 10), "navy")).size == (168, 168)
