"""From whatever the caller has to the array that a graph takes, batch by batch.

Letters of shapes: B batch, H and W the input size in pixels, N image tokens, C channels; h and w any size.

How arrays are read:

    uint8   [h, w], [h, w, 1|3|4]      one picture, channels last
            [B, h, w, 1|3|4]           B pictures
            [3, H, W], [B, 3, H, W]    prepared pixels, not normalised
    float   [3, H, W], [B, 3, H, W]    normalised pixels; float16 and float64 are converted
            [N, C], [B, N, C]          image features, for a projector

A last axis of 1, 3 or 4 always means channels last: no model has so narrow an input.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from pargo_export.errors import InputError
from pargo_export.preprocessing import (
    ImageSource,
    PictureThreads,
    PreprocessSpec,
    fit_to_input,
    load_image,
    normalize,
)
from pargo_export.runtime.arrays import describe, find_library, is_foreign_array, to_numpy
from pargo_export.runtime.runner import Array
from pargo_export.signature import TensorSpec

__all__ = ["InputReader", "Reading", "Takes"]

Takes: TypeAlias = Literal["float", "uint8", "features"]

_PICTURE_TYPES = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
_CHANNELS_LAST = (1, 3, 4)
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Reading:
    """Input that was understood, but not decoded yet: one item an image.

    Attributes:
        items: Pictures, and rows of arrays; or one array, whose rows are the items.
        like: An array of the library that the result goes back to; `None` for NumPy.
    """

    items: Sequence[ImageSource] | Array
    like: Any = None

    def __len__(self) -> int:
        return len(self.items)


class InputReader:
    """Reads the input of a graph.

    Args:
        spec: The input: a batch axis, then the axes of one image.
        takes: What its values are: normalised pixels, pixels, or image features.
        preprocessing: How pictures are prepared.
        keeps_uint8: Hand over pixels as they are where the graph takes normalised ones: whatever runs it
            normalises them.
        threads: Prepare the pictures of a list side by side; by default the calling thread does.
        jpeg_draft: Decode large JPEGs at a fraction of their size, see `preprocessing.draft`.
        check_finite: Look for NaN and infinity in float arrays.
    """

    def __init__(
        self,
        spec: TensorSpec,
        takes: Takes,
        preprocessing: PreprocessSpec,
        *,
        keeps_uint8: bool = False,
        threads: PictureThreads | None = None,
        jpeg_draft: bool = False,
        check_finite: bool = True,
    ) -> None:
        self._spec = spec
        self._takes = takes
        self._preprocessing = preprocessing
        self._keeps_uint8 = keeps_uint8 or takes == "uint8"
        self._row_shape = tuple(map(int, spec.shape[1:]))
        self._threads = threads or PictureThreads(1)
        self._check_finite = check_finite
        self._draft_for = preprocessing if jpeg_draft else None

    def read(self, images: Any) -> Reading:
        """Split the input into images, and check the dtypes and shapes of arrays.

        Args:
            images: A path, encoded bytes, a binary file object, a Pillow image, an array (see this module),
                or a list or tuple of these, mixed at will.

        Raises:
            InputError: There is nothing, or something that the graph cannot take.
        """
        if not isinstance(images, (list, tuple)):
            return Reading(self._split(images, "images"), images if is_foreign_array(images) else None)
        if not images:
            raise InputError(f"images: found an empty {type(images).__name__}, expected at least one image")
        items: list[ImageSource] = []
        for index, image in enumerate(images):
            items.extend(self._split(image, f"images[{index}]"))
        foreign = [find_library(image) for image in images if is_foreign_array(image)]
        is_one_library = len(foreign) == len(images) and all(library is foreign[0] for library in foreign)
        return Reading(items, images[0] if is_one_library else None)

    def prepare(self, reading: Reading, start: int, stop: int) -> Array:
        """Decode and prepare the items `start` to `stop`.

        Returns:
            What the graph takes, `[stop - start, ...]`; uint8 as well if `keeps_uint8` and every item is. It may
            share memory with the caller's array.

        Raises:
            ImageError: A picture cannot be read; the message names it, the first one if there are several.
            InputError: A value is not finite.
        """
        items = reading.items[start:stop]
        if isinstance(items, np.ndarray):
            return self._prepare_rows(items, start, keeps_uint8=self._keeps_uint8)
        # Some normalised pixels among the pictures: then all of the batch are.
        keeps_uint8 = self._keeps_uint8 and all(
            not isinstance(item, np.ndarray) or item.dtype == np.uint8 for item in items
        )
        batch = np.empty((len(items), *self._row_shape), np.uint8 if keeps_uint8 else self._spec.dtype)

        def prepare_one(index: int) -> None:
            item = items[index]
            if isinstance(item, np.ndarray) and not _is_picture(item):
                row = item[None]
            else:
                row = self._decode(item, start + index)
            batch[index] = self._prepare_rows(row, start + index, keeps_uint8=keeps_uint8)[0]

        self._threads.for_each(prepare_one, items)
        return batch

    def fits_on_device(self, array: Any) -> bool:
        """Whether an array of another library is what the graph takes, so that it need not come to the host."""
        kind = str(array.dtype).rpartition(".")[2]  # torch writes "torch.float32"
        is_taken = self._keeps_uint8 if kind == "uint8" else kind in _FLOATS and self._takes != "uint8"
        shape = tuple(array.shape)
        rows = (1, *shape) if len(shape) == len(self._row_shape) else shape
        return is_taken and rows[1:] == self._row_shape and rows[0] > 0

    def _split(self, image: Any, name: str) -> Sequence[ImageSource] | Array:
        """Return the images of one argument."""
        if is_foreign_array(image):
            image = to_numpy(image, name)
        if isinstance(image, np.ndarray):
            return self._split_array(image, name)
        if not isinstance(image, _PICTURE_TYPES) and not hasattr(image, "read"):
            raise InputError(
                f"{name}: found {type(image).__name__}, expected a path, bytes, a binary file object, a Pillow image, "
                "an array or tensor, or a flat list of these"
            )
        if self._takes == "features":
            raise self._wrong(f"{name}: found a picture ({type(image).__name__})")
        return [image]

    def _split_array(self, array: Array, name: str) -> Sequence[ImageSource] | Array:
        if not array.size:
            raise InputError(f"{name}: found {describe(array)}, expected at least one image")
        is_uint8 = array.dtype == np.uint8
        if is_uint8 and self._takes != "features":
            if _is_picture(array):
                return [array]
            if array.ndim == 4 and array.shape[-1] in _CHANNELS_LAST:
                return list(array)
        elif is_uint8 or array.dtype.kind != "f" or self._takes == "uint8":
            raise self._wrong(f"{name}: found {describe(array)}")
        rows = array[None] if array.ndim == len(self._row_shape) else array
        if rows.shape[1:] != self._row_shape:
            raise self._wrong(f"{name}: found {describe(array)}")
        return rows

    def _decode(self, source: ImageSource, index: int) -> Array:
        """Read a picture and fit it to the input size: uint8 `[1, 3, H, W]`."""
        name = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else f"images[{index}]"
        image = fit_to_input(
            load_image(source, name=name, draft_for=self._draft_for), self._preprocessing, name=name
        )
        return np.asarray(image).transpose(2, 0, 1)[None]

    def _prepare_rows(self, rows: Array, first: int, *, keeps_uint8: bool) -> Array:
        """Convert rows of the right shape to what the graph takes; `first` is the index of the first one."""
        if rows.dtype == np.uint8:
            return rows if keeps_uint8 else normalize(rows, self._preprocessing)
        values = rows
        if rows.dtype != np.float32:
            with np.errstate(over="ignore"):  # a float64 that overflows is reported below
                values = rows.astype(np.float32)
        if self._check_finite and not np.isfinite(values).all():
            bad = [not np.isfinite(row).all() for row in values].index(True)
            raise InputError(
                f"images[{first + bad}]: found NaN, infinite or too large values, expected finite float32; "
                "mend whatever computed them"
            )
        return values

    def _wrong(self, found: str) -> InputError:
        """Error of an input that the graph cannot take; `found` says what it is."""
        shape = ", ".join(map(str, self._row_shape))
        if self._takes == "features":
            return InputError(
                f"{found}, expected image features float32[batch, {shape}]: this graph is the projector alone; "
                "compute them with a variant of component 'encoder', or open one of component 'all'"
            )
        if self._takes == "uint8":
            return InputError(
                f"{found}, expected pictures (uint8, [height, width, 3]) or pixels uint8[batch, {shape}]: this graph "
                "normalises by itself; hand the pixels, or open a variant of input 'float'"
            )
        return InputError(
            f"{found}, expected pictures (uint8, [height, width, 3], any size) or normalised pixels "
            f"float32[batch, {shape}]; convert the dtype, move the axes, or hand pictures to have them fitted"
        )


def _is_picture(array: Array) -> bool:
    """Whether an array is one picture with its channels last."""
    return array.dtype == np.uint8 and (
        array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in _CHANNELS_LAST)
    )
