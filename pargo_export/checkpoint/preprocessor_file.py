"""`preprocessor_config.json` of a `transformers` vision model against our modes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from pargo_export.checkpoint.official_config import read_json
from pargo_export.errors import ConfigError
from pargo_export.preprocessing import PictureDefaults, PreprocessMode, PreprocessSpec

__all__ = ["read_picture_defaults"]

_NAMES = ("preprocessor_config.json", "processor_config.json")
_BILINEAR, _BICUBIC = 2, 3  # of Pillow
_RESIZE_MODES: dict[int, PreprocessMode] = {_BICUBIC: "resize", _BILINEAR: "resize-bilinear"}
_RESCALE = 1 / 255


def read_picture_defaults(directory: Path, side: int) -> PictureDefaults:
    """Read how a vision model wants its pictures.

    Args:
        directory: Of the model.
        side: Its square input, in pixels.

    Raises:
        ConfigError: The file is missing, or mean and standard deviation are not in it.
    """
    path = next((directory / name for name in _NAMES if (directory / name).is_file()), None)
    if path is None:
        raise ConfigError(
            f"{directory}: found no preprocessor_config.json, which has mean and standard deviation of the pixels; "
            "copy it from where the vision model comes from"
        )
    values = read_json(path)
    values = values.get("image_processor", values)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: image_processor is a {type(values).__name__}, expected an object")
    if not values.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    else:
        mean, std = (_channels(values, name, path) for name in ("image_mean", "image_std"))
    mode, refusal = _find_mode(values, side)
    if mode is None:
        refusal = f"{path} asks for what no mode of ours does: {refusal}"
    found = {"mode": "pad", "height": side, "width": side, "mean": mean, "std": std}
    spec = PreprocessSpec.parse(found, source=str(path))
    return PictureDefaults(spec.mean, spec.std, mode, refusal)


def _channels(values: Mapping[str, Any], name: str, path: Path) -> Any:
    if values.get(name) is None:
        raise ConfigError(f"{path}: found no {name}; expected three numbers, for red, green and blue")
    found = values[name]
    return (found,) * 3 if isinstance(found, (int, float)) else found


def _find_mode(values: Mapping[str, Any], side: int) -> tuple[PreprocessMode | None, str]:
    """Return the mode that does exactly what the file says, or `None` and what is in the way."""
    obstacle = _find_obstacle(values)
    if obstacle:
        return None, obstacle
    filter_ = values.get("resample", _BICUBIC)
    size = _sides(values.get("size"))
    crop = _sides(values.get("crop_size")) if values.get("do_center_crop", False) else None
    if size == (side, side) and crop in (None, (side, side)) and filter_ in _RESIZE_MODES:
        return _RESIZE_MODES[filter_], ""
    if size == side and crop in (side, (side, side)) and filter_ == _BICUBIC:
        return "center-crop", ""
    cut = "" if crop is None else f" cut to {values.get('crop_size')}"
    return (
        None,
        f"size {values.get('size')}{cut} with resample {filter_}, for an input of {side} x {side} pixels",
    )


def _find_obstacle(values: Mapping[str, Any]) -> str:
    rescale = values.get("rescale_factor", _RESCALE)
    if not values.get("do_rescale", True) or not isclose(rescale, _RESCALE, rel_tol=1e-6):
        return f"pixels times {rescale} (do_rescale {values.get('do_rescale', True)}), not times 1/255"
    if not values.get("do_resize", True):
        return "pictures as large as they are (do_resize false)"
    return "padded pictures (do_pad true)" if values.get("do_pad", False) else ""


def _sides(size: Any) -> int | tuple[int, int] | None:
    """Return the shortest edge, or height and width; older files write a single number."""
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    return None
