"""The whole visual front-end."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, model_validator
from typing_extensions import Self

from pargo_export.config.projector import ProjectorConfig
from pargo_export.config.record import Positive, Record
from pargo_export.config.tower import TowerConfig, parse_tower

__all__ = ["ModelConfig"]

_NUM_NAMED = 6


class ModelConfig(Record):
    """The whole visual front-end: tower, `ln_vision`, projector, and how an image is cut into tiles.

    Attributes:
        vision: The tower.
        projector: The projector.
        tile_rows: Tiles from top to bottom; 1 = the image is one tile.
        tile_columns: Tiles from left to right.
    """

    vision: Annotated[TowerConfig, BeforeValidator(parse_tower)]
    projector: ProjectorConfig
    tile_rows: Positive = 1
    tile_columns: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.projector.encoder_width != self.vision.width:
            raise ValueError(
                f"projector.encoder_width {self.projector.encoder_width} differs from vision.width {self.vision.width}"
            )
        tokens, partial = self.num_image_tokens, self.projector.num_partial_tokens
        if partial and tokens % partial:
            raise ValueError(
                f"{tokens} image tokens ({self.num_tiles} tile(s) of {self.vision.num_patches}) cannot be divided "
                f"evenly among {partial} partial tokens; numbers that work: {_divisors_near(tokens, partial)}"
            )
        group = self.projector.tokens_per_group
        if not self.projector.has_queries and tokens % group:
            raise ValueError(f"{tokens} image tokens cannot be grouped by tokens_per_group {group}")
        return self

    @property
    def num_tiles(self) -> int:
        """T, tiles of one image."""
        return self.tile_rows * self.tile_columns

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of one input image, in pixels."""
        return self.tile_rows * self.vision.image_size, self.tile_columns * self.vision.image_size

    @property
    def num_image_tokens(self) -> int:
        """N, image tokens of all tiles together."""
        return self.num_tiles * self.vision.num_patches

    @property
    def window_size(self) -> int:
        """W, image tokens that one partial token sees; 0 without partial tokens."""
        partial = self.projector.num_partial_tokens
        return self.num_image_tokens // partial if partial else 0

    @property
    def num_visual_tokens(self) -> int:
        """Tokens handed to the LLM per image."""
        if self.projector.has_queries:
            return self.projector.num_query_tokens
        return self.num_image_tokens // self.projector.tokens_per_group

    def with_tiles(self, rows: int, columns: int) -> ModelConfig:
        """Return the same model on another tile grid (weights do not depend on it).

        Raises:
            ConfigError: The tokens of that grid cannot be divided among the partial tokens.
        """
        values = self.model_dump() | {"tile_rows": rows, "tile_columns": columns}
        return ModelConfig.parse(values, source=f"tiles {rows}x{columns}")


def _divisors_near(tokens: int, partial: int) -> str:
    """Name the numbers of partial tokens that divide the image tokens, those closest to what was asked for."""
    divisors = [number for number in range(1, tokens + 1) if tokens % number == 0]
    nearest = sorted(divisors, key=lambda number: abs(number - partial))[:_NUM_NAMED]
    return ", ".join(map(str, sorted(nearest)))
