"""Batches of pixels, as uint8 and normalised.

Letters of shapes: B batch, H and W the input size of the model in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pargo_export.errors import InputError
from pargo_export.preprocessing.geometry import fit_to_input
from pargo_export.preprocessing.loading import ImageSource, load_image
from pargo_export.preprocessing.spec import PreprocessSpec

__all__ = ["normalize", "preprocess", "preprocess_uint8"]


def preprocess(images: Sequence[ImageSource], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Read pictures, fit them to the input size and normalise them.

    Args:
        images: B pictures, each anything that `load_image` reads.
        spec: The preprocessing of the bundle.

    Returns:
        float32 `[B, 3, H, W]`, channels red, green, blue: `(value / 255 - mean) / std`.

    Raises:
        ImageError: A picture cannot be read; the message names it.
        InputError: There is no picture, or one is of a wrong type, dtype or shape.
    """
    return normalize(preprocess_uint8(images, spec), spec)


def preprocess_uint8(images: Sequence[ImageSource], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Read pictures and fit them to the input size, for graphs that normalise by themselves.

    Args:
        images: B pictures, each anything that `load_image` reads.
        spec: The preprocessing of the bundle; `std` is not used, `mean` only for the pad colour.

    Returns:
        uint8 `[B, 3, H, W]`, channels red, green, blue.

    Raises:
        ImageError: A picture cannot be read; the message names it.
        InputError: There is no picture, or one is of a wrong type, dtype or shape.
    """
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, np.ndarray)):
        raise InputError(f"images: found one {type(images).__name__}, expected a list; pass [image]")
    if not images:
        raise InputError("images: found an empty list, expected at least one picture")
    batch = np.empty((len(images), 3, spec.height, spec.width), np.uint8)
    for index, source in enumerate(images):
        name = str(source) if isinstance(source, (str, os.PathLike)) else f"images[{index}]"
        image = fit_to_input(load_image(source, name=name), spec, name=name)
        batch[index] = np.asarray(image).transpose(2, 0, 1)
    return batch


def normalize(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Scale to 0..1, subtract the mean and divide by the deviation, in float32.

    Args:
        pixels: uint8 `[B, 3, H, W]`.
        spec: The preprocessing of the bundle.

    Returns:
        float32 `[B, 3, H, W]`, a new array.

    Raises:
        InputError: `pixels` has another dtype or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (3, spec.height, spec.width):
        raise InputError(
            f"pixels: found {pixels.dtype}{list(pixels.shape)}, expected uint8[batch, 3, {spec.height}, "
            f"{spec.width}]; prepare them with preprocess_uint8"
        )
    values = pixels.astype(np.float32, order="C")
    values /= 255
    values -= np.array(spec.mean, np.float32)[:, None, None]
    values /= np.array(spec.std, np.float32)[:, None, None]
    return values
