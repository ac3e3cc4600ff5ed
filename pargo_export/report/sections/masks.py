"""Who sees what: the attention masks, and the windows over a photograph."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pargo_export.assets import PHOTOGRAPH
from pargo_export.config import ModelConfig
from pargo_export.inspect import draw_masks, draw_windows
from pargo_export.inspect.draw_windows import window_owners
from pargo_export.preprocessing import fit_to_input, load_image
from pargo_export.report.context import Context
from pargo_export.report.parts import Block, Photo, Picture, Section

__all__ = ["masks"]

_JPEG_QUALITY = 84


def masks(context: Context) -> Section | None:
    """Show the windows on a photograph and the masks; `None` without the bundle, or for a model without queries."""
    if context.bundle is None:
        return None
    manifest = context.bundle.manifest
    config, projector = manifest.model, manifest.model.projector
    drawn = draw_masks(config)
    if drawn is None:
        return None
    blocks: list[Block] = []
    tinted = draw_windows(config, manifest.preprocessing, PHOTOGRAPH)
    if tinted is not None:
        plain = fit_to_input(load_image(PHOTOGRAPH), manifest.preprocessing)
        blocks.append(
            Photo(
                plain=_encode(plain.resize(tinted.size, Image.Resampling.BICUBIC), "JPEG"),
                tinted=_encode(tinted, "JPEG"),
                owners=tuple(tuple(int(owner) for owner in row) for row in window_owners(config)),
                num_partial=projector.num_partial_tokens,
                num_global=projector.num_global_tokens,
                window=config.window_size,
                attends=_attends(config),
            )
        )
    blocks.append(
        Picture(
            _encode(drawn, "PNG"),
            alt=f"Masks of cross-attention and self-attention: {projector.num_partial_tokens} partial tokens each see "
            f"{config.window_size} image tokens, {projector.num_global_tokens} global tokens see all "
            f"{config.num_image_tokens}.",
            caption="Left cross-attention, then self-attention: a row is a query token, a column what it may see. Blue: partial tokens, red: global "
            "tokens, light: hidden.",
            width=drawn.width,
            height=drawn.height,
        )
    )
    lead = (
        "A partial token sees one window of the image, a global token all of it. The photograph is one of ours, prepared "
        "as this bundle prepares pictures; the windows do not depend on what it shows."
    )
    return Section("masks", "Attention masks and windows", tuple(blocks), lead)


def _attends(config: ModelConfig) -> tuple[tuple[str, int | None], ...]:
    """For each window of self-attention: the layers that have it, in words, and the window."""
    projector = config.projector
    by_window: dict[int | None, list[int]] = {}
    for layer in range(projector.num_layers):
        by_window.setdefault(projector.partial_attention_window(layer), []).append(layer)
    if len(by_window) == 1:
        return (("every layer", next(iter(by_window))),)
    return tuple(
        (f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}", window)
        for window, layers in by_window.items()
    )


def _encode(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    options = {"quality": _JPEG_QUALITY} if kind == "JPEG" else {"optimize": True}
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
