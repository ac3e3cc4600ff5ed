"""`preprocessor_config.json` against our modes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from vit_cases import KINDS, TOWERS, vit_io

from pargo_export.checkpoint.preprocessor_file import read_picture_defaults
from pargo_export.errors import ConfigError
from pargo_export.preprocessing import preprocess

SIDES = {"clip": 24, "siglip": 26}
SQUARE = {"height": 8, "width": 8}
FILE = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 3, "size": SQUARE}


def write(directory, values, name="preprocessor_config.json"):
    """Write the file and return its directory."""
    (directory / name).write_text(json.dumps(values))
    return directory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", range(4))
def test_pixels_are_those_of_transformers(kind, index):
    """Wide, tall, square and small pictures become the pixels that the image processor makes of them."""
    io, side = vit_io(kind), SIDES[kind]
    spec = read_picture_defaults(TOWERS / kind, side).spec("auto", (side, side))
    picture = Image.fromarray(io[f"pictures.{index}"].numpy())
    assert np.abs(preprocess([picture], spec) - io[f"prepared.{index}"].numpy()).max() <= 1e-6


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "resize"),
        ({"resample": 2}, "resize-bilinear"),
        ({"crop_size": SQUARE, "do_center_crop": True}, "resize"),
        ({"size": {"shortest_edge": 8}, "crop_size": SQUARE, "do_center_crop": True}, "center-crop"),
        ({"size": 8, "crop_size": 8, "do_center_crop": True}, "center-crop"),
        ({"crop_size": {"height": 4, "width": 4}, "do_center_crop": False}, "resize"),
    ],
)
def test_modes(tmp_path, changes, mode):
    """Each way of fitting a picture has the mode that does the same."""
    found = read_picture_defaults(write(tmp_path, FILE | changes), 8)
    assert (found.mode, found.mean, found.std) == (mode, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert found.spec("pad", (16, 8)).mode == "pad"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resample": 0}, "with resample 0"),
        (
            {"size": {"shortest_edge": 8}},
            "size {'shortest_edge': 8} with resample 3, for an input of 8 x 8 pixels",
        ),
        ({"size": {"shortest_edge": 10}, "crop_size": SQUARE, "do_center_crop": True}, "cut to {'height': 8"),
        (
            {"size": {"shortest_edge": 8}, "crop_size": SQUARE, "do_center_crop": True, "resample": 2},
            "resample 2",
        ),
        ({"size": {"height": 9, "width": 8}}, "size {'height': 9"),
        ({"size": None}, "size None"),
        ({"do_rescale": False}, "do_rescale False"),
        ({"rescale_factor": 1 / 127.5}, "pixels times 0.0078"),
        ({"do_resize": False}, "do_resize false"),
        ({"do_pad": True}, "do_pad true"),
    ],
)
def test_what_no_mode_does(tmp_path, changes, reason):
    """The reason is given when a mode is asked for, and another mode may be named."""
    found = read_picture_defaults(write(tmp_path, FILE | changes), 8)
    with pytest.raises(
        ConfigError, match=r"asks for what no mode of ours does: .*name a mode yourself"
    ) as error:
        found.spec("auto", (8, 8))
    assert reason in str(error.value)
    assert found.spec("square-resize", (8, 8)).mean == (0.5, 0.4, 0.3)


def test_statistics(tmp_path):
    """One number stands for three, no normalisation for mean 0 and deviation 1, and both may be in a newer file."""
    found = read_picture_defaults(write(tmp_path, FILE | {"image_mean": 0.5, "image_std": 0.25}), 8)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    found = read_picture_defaults(write(tmp_path, FILE | {"do_normalize": False}), 8)
    assert (found.mean, found.std) == ((0,) * 3, (1,) * 3)
    (tmp_path / "preprocessor_config.json").unlink()
    found = read_picture_defaults(write(tmp_path, {"image_processor": FILE}, "processor_config.json"), 8)
    assert found.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": SQUARE, "image_std": [1, 1, 1]}, "found no image_mean; expected three numbers"),
        (FILE | {"image_std": [0.2, 0.2]}, "std.2: Field required"),
        (FILE | {"image_mean": [120, 110, 100]}, "mean.0: Input should be less than or equal to 1"),
        ({"image_processor": 3}, "image_processor is a int, expected an object"),
    ],
)
def test_broken_files(tmp_path, values, message):
    """A file without usable statistics is refused by name."""
    with pytest.raises(ConfigError, match=message):
        read_picture_defaults(write(tmp_path, values), 8)
