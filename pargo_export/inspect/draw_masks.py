"""Draw the attention masks: as text for a terminal, as a picture for everything else.

Large masks are shrunk: one character then stands for a block of the mask. Partial and global tokens are
shrunk separately, so that a few global tokens stay visible beside hundreds of partial ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pargo_export.config import ModelConfig, ProjectorConfig
from pargo_export.model.masks import cross_attention_keep, self_attention_keep

__all__ = ["draw_masks", "mask_text"]

Mask = NDArray[np.bool_]

ALL, SOME, NONE = "█▒·"
_LEGEND = {ALL: "seen", SOME: "partly seen", NONE: "not seen"}
_MAX_LINES = 20
_MARGIN = 18  # "partial 276-287  " and one column to spare

_PICTURE_SIDE = 1152  # pixels that the longer side of a mask is enlarged to, at most
_GAP = 16
_COLORS = {"hidden": (238, 238, 242), "partial": (31, 119, 180), "global": (214, 96, 77)}


def mask_text(config: ModelConfig, *, width: int = 80) -> str:
    """Draw cross-attention and self-attention masks as text.

    Args:
        config: The model.
        width: Characters of a line.

    Returns:
        Lines with the masks; for a projector without queries one line that says so.
    """
    projector = config.projector
    if not projector.has_queries:
        return f"a {projector.kind} projector has no attention, hence no masks"
    drawings = []
    for name, what, keep, columns in _masks(config):
        title = f"{name}: {keep.shape[0]} query tokens x {keep.shape[1]} {what}, {keep.mean():.1%} kept"
        rows = (projector.num_partial_tokens, projector.num_global_tokens)
        drawings.append(f"{title}\n" + "\n".join(_draw_text(keep, rows, columns, width - _MARGIN)))
    text = "\n\n".join(drawings)
    legend = [f"{symbol} {meaning}" for symbol, meaning in _LEGEND.items() if symbol in text]
    return f"{text}\n\n{'   '.join(legend)}"


def draw_masks(config: ModelConfig) -> Image.Image | None:
    """Draw the masks side by side, at least one pixel a cell: blue partial tokens, red global ones.

    Returns:
        The picture; `None` for a projector without queries.
    """
    if not config.projector.has_queries:
        return None
    drawn = [(name, _enlarge(keep, config.projector)) for name, _, keep, _ in _masks(config)]
    canvas = Image.new(
        "RGB",
        (
            sum(picture.width + _GAP for _, picture in drawn) + _GAP,
            max(picture.height for _, picture in drawn) + 3 * _GAP,
        ),
        "white",
    )
    pen, left = ImageDraw.Draw(canvas), _GAP
    for name, picture in drawn:
        pen.text((left, _GAP // 2), name, fill="black")
        canvas.paste(picture, (left, 2 * _GAP))
        left += picture.width + _GAP
    return canvas


def _masks(config: ModelConfig) -> Iterator[tuple[str, str, Mask, tuple[int, ...]]]:
    """Yield name, kind of columns, mask and the sizes of the groups of columns: cross-attention first."""
    projector, tokens = config.projector, config.num_image_tokens
    partial, others = projector.num_partial_tokens, projector.num_global_tokens
    layers = range(projector.num_layers)
    crossing = [layer for layer in layers if projector.has_cross_attention(layer)]
    name = f"cross-attention, {_name_layers(crossing, len(layers))}"
    yield name, "image tokens", cross_attention_keep(partial, others, tokens), (tokens,)
    by_window: dict[int | None, list[int]] = {}
    for layer in layers:
        by_window.setdefault(projector.partial_attention_window(layer), []).append(layer)
    for window, members in by_window.items():
        name = f"self-attention, {_name_layers(members, len(layers))}"
        yield name, "query tokens", self_attention_keep(partial, others, window), (partial, others)


def _name_layers(members: list[int], num_layers: int) -> str:
    if len(members) == num_layers:
        return "every layer"
    return f"layer{'s' if len(members) > 1 else ''} {', '.join(map(str, members))}"


def _draw_text(keep: Mask, rows: tuple[int, int], columns: tuple[int, ...], width: int) -> Iterator[str]:
    """Yield a line for every block of rows; blocks that look alike share one."""
    left_edges = _edges(columns, width)
    start = 0
    for name, count in zip(("partial", "global"), rows, strict=True):
        blocks = []
        for top, bottom in pairwise(_edges((count,), _MAX_LINES)):
            block = keep[start + top : start + bottom]
            cells = "".join(_symbol(block[:, left:right]) for left, right in pairwise(left_edges))
            blocks.append((cells, start + top, start + bottom - 1))
        for cells, alike in groupby(blocks, key=itemgetter(0)):
            members = list(alike)
            first, last = members[0][1], members[-1][2]
            label = f"{first}" if first == last else f"{first}-{last}"
            yield f"{name:>7} {label:<8} {cells}"
        start += count


def _edges(groups: tuple[int, ...], most: int) -> list[int]:
    """Cut groups into at most about `most` blocks of nearly equal size; no block spans two groups."""
    total = sum(groups)
    edges, start = [0], 0
    for size in groups:
        blocks = size if total <= most else max(1, size * most // total) if size else 0
        edges += [start + size * (index + 1) // blocks for index in range(blocks)]
        start += size
    return edges


def _symbol(block: Mask) -> str:
    if block.all():
        return ALL
    return SOME if block.any() else NONE


def _enlarge(keep: Mask, projector: ProjectorConfig) -> Image.Image:
    pixels = np.empty((*keep.shape, 3), dtype=np.uint8)
    pixels[:] = _COLORS["hidden"]
    is_partial = np.arange(len(keep)) < projector.num_partial_tokens
    pixels[keep & is_partial[:, None]] = _COLORS["partial"]
    pixels[keep & ~is_partial[:, None]] = _COLORS["global"]
    scale = max(1, _PICTURE_SIDE // max(keep.shape))
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
