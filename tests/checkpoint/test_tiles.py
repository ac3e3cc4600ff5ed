"""From image size, crop size and crop count to rows and columns of tiles."""

from __future__ import annotations

import pytest

from pargo_export.checkpoint.statements import Statements
from pargo_export.checkpoint.tiles import tile_grid
from pargo_export.errors import ConfigError


def statements(**values):
    """State values under their own names."""
    result = Statements("file.json")
    for name, value in values.items():
        result.add(name, value, f"{name} {value}")
    return result


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        ({}, (1, 1)),
        ({"image_size": 84}, (1, 1)),
        ({"image_size": 168}, (2, 2)),
        ({"image_size": 168, "num_tiles": 4}, (2, 2)),
        ({"image_size": [84, 168], "num_tiles": 2}, (1, 2)),
        ({"image_size": [168, 84]}, (2, 1)),
        ({"image_size": 84, "num_tiles": 4}, (2, 2)),
        ({"image_size": 84, "num_tiles": 9}, (3, 3)),
        ({"image_size": 84, "num_tiles": 3}, (1, 3)),
        ({"image_size": [84, 84], "num_tiles": 2}, (1, 2)),
        ({"num_tiles": 4}, (2, 2)),
        ({"tile_rows": 3}, (3, 1)),
        ({"tile_rows": 3, "tile_columns": 2}, (3, 2)),
    ],
)
def test_grids(values, grid):
    """Every way to say it gives the grid that is meant."""
    assert tile_grid(statements(**values), 84) == grid


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"image_size": 168, "num_tiles": 2},
            "num_tiles 2, but image_size 168 in tiles of 84 pixels are 2 x 2",
        ),
        ({"image_size": 100}, "image_size 100 is not a whole number of tiles of 84 pixels"),
        ({"image_size": 42}, "not a whole number"),
        ({"image_size": "84"}, "expected a side in pixels"),
        ({"image_size": [84]}, "expected a side in pixels"),
        ({"image_size": [84, -84]}, "expected a side in pixels"),
        ({"num_tiles": 0}, "expected a positive integer"),
        ({"num_tiles": 1.5}, "expected a positive integer"),
    ],
)
def test_contradictions(values, message):
    """What cannot be is refused with both sides."""
    with pytest.raises(ConfigError, match=message):
        tile_grid(statements(**values), 84)
