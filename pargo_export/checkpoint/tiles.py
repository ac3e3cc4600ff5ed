"""How an image is cut into tiles, from the many ways to say it."""

from __future__ import annotations

from math import isqrt
from typing import Any

from pargo_export.checkpoint.statements import Statements
from pargo_export.errors import ConfigError

__all__ = ["tile_grid"]


def tile_grid(statements: Statements, tile_size: int) -> tuple[int, int]:
    """Return rows and columns of tiles.

    `image_size` is a side or `[height, width]` of the whole image. Where it equals one tile although there are
    several, it was meant per tile: a square number of tiles is a square grid, any other is one row.

    Args:
        statements: What the configuration says (`tile_rows`, `tile_columns` or `image_size`, `num_tiles`).
        tile_size: Side of a tile in pixels.

    Raises:
        ConfigError: The image is not a whole number of tiles, or not the number that is stated.
    """
    if "tile_rows" in statements or "tile_columns" in statements:
        return statements.value("tile_rows", 1), statements.value("tile_columns", 1)
    height, width = _image_sides(statements, tile_size)
    if height % tile_size or width % tile_size:
        raise ConfigError(
            f"{statements.source}: {statements.wording('image_size')} is not a whole number of tiles of {tile_size} pixels"
        )
    rows, columns = height // tile_size, width // tile_size
    count = statements.value("num_tiles", rows * columns)
    if not isinstance(count, int) or count < 1:
        raise ConfigError(
            f"{statements.source}: {statements.wording('num_tiles')}, expected a positive integer"
        )
    if rows * columns == 1 and count > 1:
        side = isqrt(count)
        return (side, side) if side * side == count else (1, count)
    if rows * columns != count:
        raise ConfigError(
            f"{statements.source} contradicts itself: {statements.wording('num_tiles')}, but "
            f"{statements.wording('image_size')} in tiles of {tile_size} pixels are {rows} x {columns}"
        )
    return rows, columns


def _image_sides(statements: Statements, tile_size: int) -> tuple[int, int]:
    size: Any = statements.value("image_size", tile_size)
    sides = (size, size) if isinstance(size, int) else size
    is_pair = isinstance(sides, (list, tuple)) and len(sides) == 2
    if not is_pair or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(
            f"{statements.source}: {statements.wording('image_size')}, expected a side in pixels or [height, width]"
        )
    return sides[0], sides[1]
