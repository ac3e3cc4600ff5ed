"""From pictures to the pixels that a graph takes: read, fit to the input size, normalise.

Needs NumPy and Pillow only, so that a device prepares its pictures exactly as the export did::

    spec = PreprocessSpec.parse({"mode": "pad", "height": 336, "width": 336}, source="manifest.json")
    pixels = preprocess(["street.jpg", "dog.png"], spec)  # float32 [2, 3, 336, 336]
"""

from __future__ import annotations

from pargo_export.preprocessing.geometry import fit_to_input
from pargo_export.preprocessing.loading import ImageSource, load_image
from pargo_export.preprocessing.pixels import normalize, preprocess, preprocess_uint8
from pargo_export.preprocessing.spec import PictureDefaults, PreprocessMode, PreprocessSpec
from pargo_export.preprocessing.threads import PictureThreads

__all__ = [
    "ImageSource",
    "PictureDefaults",
    "PictureThreads",
    "PreprocessMode",
    "PreprocessSpec",
    "fit_to_input",
    "load_image",
    "normalize",
    "preprocess",
    "preprocess_uint8",
]
