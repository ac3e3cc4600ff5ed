"""Draw the partial windows over a photograph: which patches each partial token sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pargo_export.config import ModelConfig
from pargo_export.model.masks import window_size
from pargo_export.preprocessing import ImageSource, PreprocessSpec, fit_to_input, load_image

__all__ = ["draw_windows", "window_owners"]

_SCALE = 2  # enlargement of the model's input, so that single patches are visible
# Neighbours differ clearly, colour-blind readers included.
_TINTS = np.array([(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)], dtype=np.float32)
_TINT = 0.25


def window_owners(config: ModelConfig) -> NDArray[np.intp]:
    """Return `[rows of patches, columns of patches]`: the partial token that sees each patch of the image.

    Image tokens run through one tile in row-major order, then through the next tile.
    """
    rows, columns, grid = config.tile_rows, config.tile_columns, config.vision.grid_size
    owner = np.arange(config.num_image_tokens) // window_size(
        config.projector.num_partial_tokens, config.num_image_tokens
    )
    tiles = owner.reshape(rows, columns, grid, grid)
    return tiles.transpose(0, 2, 1, 3).reshape(rows * grid, columns * grid)


def draw_windows(config: ModelConfig, spec: PreprocessSpec, photograph: ImageSource) -> Image.Image | None:
    """Tint a photograph, as the model sees it, by the windows; neighbouring windows differ in colour.

    Args:
        config: The model.
        spec: Preprocessing of the bundle.
        photograph: A picture.

    Returns:
        The picture; `None` for a model without partial tokens.

    Raises:
        ImageError: The photograph cannot be read.
    """
    if not config.projector.num_partial_tokens:
        return None
    image = fit_to_input(load_image(photograph), spec)
    image = image.resize((image.width * _SCALE, image.height * _SCALE), Image.Resampling.BICUBIC)
    owner = window_owners(config)
    side = config.vision.patch_size * _SCALE
    by_pixel = owner.repeat(side, axis=0).repeat(side, axis=1)
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels * (1 - _TINT) + _TINTS[by_pixel % len(_TINTS)] * _TINT
    is_edge = np.zeros(by_pixel.shape, dtype=np.bool_)
    is_edge[1:] |= by_pixel[1:] != by_pixel[:-1]
    is_edge[:, 1:] |= by_pixel[:, 1:] != by_pixel[:, :-1]
    pixels[is_edge] = 255
    return Image.fromarray(pixels.round().astype(np.uint8))
