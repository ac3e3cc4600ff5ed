"""The questions that flipped, with small pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from pargo_export.errors import ImageError
from pargo_export.evaluation.mme.data import find_picture
from pargo_export.evaluation.mme.records import Comparison, Flip, MmeEvaluation
from pargo_export.evaluation.report.style import question
from pargo_export.preprocessing import load_image
from pargo_export.report import text
from pargo_export.report.parts import Block, Gallery, GalleryItem, Note, Section, Table

__all__ = ["flips"]

_MOST_PICTURES = 24  # of each comparison; all flips are in the table
_SIDE = 160  # pixels
_JPEG_QUALITY = 72


def flips(found: MmeEvaluation) -> Section | None:
    """Show what each variant answers differently; `None` without comparisons."""
    if not found.comparisons:
        return None
    blocks: list[Block] = []
    for item in found.comparisons:
        if item.flips:
            blocks += _show(found, item)
        else:
            blocks.append(Note(f"{item.variant}: no question flipped beside {item.baseline}."))
    lead = "Questions that one of the two answers right and the other wrong; what is lost comes first."
    return Section("flips", "Flipped questions", tuple(blocks), lead)


def _show(found: MmeEvaluation, item: Comparison) -> list[Block]:
    ordered = sorted(item.flips, key=lambda flip: flip.is_gain)
    shown = ordered[:_MOST_PICTURES]
    root = None if found.data is None else Path(found.data.path)
    number = f"{item.num_lost} lost, {item.num_gained} gained"
    rest = f"; pictures of the first {len(shown)}" if len(shown) < len(ordered) else ""
    rows = tuple(
        (
            flip.task,
            flip.image,
            question(found, flip.prompt),
            flip.truth,
            flip.baseline_answer,
            flip.answer,
            "gained" if flip.is_gain else "lost",
        )
        for flip in ordered
    )
    columns = ("task", "image", "question", "right", "baseline", "variant", "")
    return [
        Note(f"{item.variant} beside {item.baseline}: {number}{rest}."),
        Gallery(tuple(_item(found, root, flip) for flip in shown)),
        Table(
            f"{item.variant}: {text.plural(len(rows), 'flipped question')}",
            columns,
            rows,
            num_text=len(columns),
        ),
    ]


def _item(found: MmeEvaluation, root: Path | None, flip: Flip) -> GalleryItem:
    return GalleryItem(
        source="" if root is None else _thumbnail(root, flip),
        alt=f"{flip.task}, image {flip.image}",
        title=f"{'Gained' if flip.is_gain else 'Lost'}: {flip.task}",
        lines=(
            question(found, flip.prompt),
            f"Right: {flip.truth}. Baseline: {flip.baseline_answer}. Variant: {flip.answer}.",
        ),
        tone="good" if flip.is_gain else "bad",
    )


def _thumbnail(root: Path, flip: Flip) -> str:
    """Return a small copy of the picture as a `data:` address; empty if it is not there any more."""
    path = find_picture(root, flip.task, flip.image)
    if path is None:
        return ""
    try:
        picture = load_image(path)
    except ImageError:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
