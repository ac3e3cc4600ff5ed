"""How pictures are prepared for one bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator
from typing_extensions import Self

from pargo_export.config import Record

__all__ = ["CLIP_MEAN", "CLIP_STD", "OFFICIAL_CANVAS_SIZE", "PreprocessMode", "PreprocessSpec"]

PreprocessMode = Literal["pad", "resize", "square-resize", "official-eval"]

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
    - `square-resize`: expand with the pad colour to the aspect ratio of the input (a square for a
      square input), then resize.
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
