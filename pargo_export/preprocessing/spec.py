"""How pictures are prepared for one bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator
from typing_extensions import Self

from pargo_export.config import Record
from pargo_export.errors import ConfigError

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "OFFICIAL_CANVAS_SIZE",
    "PictureDefaults",
    "PreprocessMode",
    "PreprocessSpec",
]

PreprocessMode = Literal["pad", "resize", "resize-bilinear", "square-resize", "center-crop", "official-eval"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Side in pixels that the official evaluation pads to, whatever the input size of the model.
OFFICIAL_CANVAS_SIZE = 448

Pixels = Annotated[int, Field(gt=0)]
Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PreprocessSpec(Record):
    """The preprocessing of one bundle, stored in its manifest.

    The modes:

    - `pad`: resize keeping the aspect ratio, centre on a canvas of the pad colour. What ParGo was
      trained with, and the default of the official code.
    - `resize`: resize to the input size; the aspect ratio is lost.
    - `resize-bilinear`: the same with Pillow's bilinear filter, as the published SigLIP 2 towers have it.
    - `square-resize`: expand with the pad colour to the aspect ratio of the input (a square for a
      square input), then resize.
    - `center-crop`: resize keeping the aspect ratio until the input is covered, then cut out the middle.
      What the published CLIP towers were trained with.
    - `official-eval`: what the official evaluation really does, probably by mistake: `pad` to
      448 x 448, of which the model then sees only the top-left `height` x `width` (336 x 336).
      A strip of 112 pixels at the right and at the bottom is lost. Only to reproduce its scores.

    Attributes:
        mode: How a picture is fitted to the input size.
        height: Height of the model input, in pixels, all tiles together.
        width: Width of the model input, in pixels, all tiles together.
        mean: Subtracted per channel (red, green, blue) after scaling to 0..1.
        std: Divided by per channel after subtracting `mean`.
    """

    mode: PreprocessMode = "pad"
    height: Pixels
    width: Pixels
    mean: tuple[Mean, Mean, Mean] = CLIP_MEAN
    std: tuple[Deviation, Deviation, Deviation] = CLIP_STD

    @model_validator(mode="wrap")
    @classmethod
    def _check_stored_pad_color(cls, values: Any, handler: Callable[[Any], Self]) -> Self:
        """A manifest stores the derived `pad_color` for readers in other languages; it must agree."""
        stored = None
        if isinstance(values, Mapping):
            values = dict(values)
            stored = values.pop("pad_color", None)
        spec = handler(values)
        if stored is not None and stored not in (spec.pad_color, list(spec.pad_color)):
            raise ValueError(
                f"pad_color {stored} is not int(mean * 255) = {list(spec.pad_color)}; it is derived: leave it out"
            )
        return spec

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "official-eval" and max(self.height, self.width) > OFFICIAL_CANVAS_SIZE:
            raise ValueError(
                f"mode 'official-eval' crops from a {OFFICIAL_CANVAS_SIZE}x{OFFICIAL_CANVAS_SIZE} canvas, but the "
                f"model input is {self.height}x{self.width} (height x width); use mode 'pad'"
            )
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pad_color(self) -> tuple[int, int, int]:
        """Red, green, blue (0..255) around the picture: the mean, rounded down as the official code does."""
        red, green, blue = self.mean
        return int(red * 255), int(green * 255), int(blue * 255)


@dataclass(frozen=True)
class PictureDefaults:
    """How a published tower wants its pictures, whatever the input size is.

    Attributes:
        mean: Of `PreprocessSpec`.
        std: Of `PreprocessSpec`.
        mode: Of `PreprocessSpec`; `None` if there is none that does what the tower wants.
        refusal: Why not.
    """

    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    mode: PreprocessMode | None = "pad"
    refusal: str = ""

    def spec(self, mode: PreprocessMode | Literal["auto"], input_size: tuple[int, int]) -> PreprocessSpec:
        """Return the preprocessing for an input of height x width pixels.

        Raises:
            ConfigError: The mode is `auto` and none does what the tower wants, or it does not fit the input.
        """
        chosen = self.mode if mode == "auto" else mode
        if chosen is None:
            raise ConfigError(
                f"{self.refusal}; name a mode yourself if the projector was trained with another one (--preprocess, "
                "preprocess=)"
            )
        values = {"mode": chosen, "height": input_size[0], "width": input_size[1]}
        return PreprocessSpec.parse(values | {"mean": self.mean, "std": self.std}, source="preprocess")
