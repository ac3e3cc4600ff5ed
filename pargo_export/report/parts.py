"""What a page is made of: sections of plots, tables and text. Texts are plain; the template escapes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "Block",
    "Card",
    "Cards",
    "Choice",
    "Facts",
    "Figure",
    "Gallery",
    "GalleryItem",
    "Heading",
    "LegendEntry",
    "Note",
    "Photo",
    "Picture",
    "Plot",
    "PrecisionMap",
    "PrecisionRow",
    "Section",
    "Table",
    "View",
]

# Data and layout of plotly.js. A colour is `var(--name)`, which the page resolves in the theme that is on.
Figure: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row.

    Attributes:
        caption: What it shows.
        columns: Titles of the columns.
        rows: Cells, as many as columns.
        num_text: Leading columns with text; the others are numbers, and set to the right.
        is_open: Whether it is shown at once, or when it is asked for.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int = 1
    is_open: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Choice:
    """Something that the reader may choose above a plot.

    Attributes:
        label: Its name.
        values: What there is, the first is shown first.
    """

    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """One drawing of a plot.

    Attributes:
        key: A value of each choice, in their order.
        figure: What is drawn.
        alt: What it shows, for readers who do not see it.
    """

    key: tuple[str, ...]
    figure: Figure
    alt: str


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend, with which the reader shows and hides.

    Attributes:
        group: `legendgroup` of the traces that it stands for.
        name: What they are.
        color: A CSS value.
        shape: `"box"`, `"line"`, `"dash"` or `"dot"`.
    """

    group: str
    name: str
    color: str
    shape: str = "box"


@dataclass(frozen=True)
class Plot:
    """A plot, its legend, and the same numbers as a table.

    Attributes:
        anchor: Unique in the page.
        title: Its title.
        views: Drawings, at least one.
        choices: What selects between them.
        legend: Who is who.
        note: How to read it.
        table: The numbers; `None` if another table of the section has them.
    """

    anchor: str
    title: str
    views: tuple[View, ...]
    choices: tuple[Choice, ...] = ()
    legend: tuple[LegendEntry, ...] = ()
    note: str = ""
    table: Table | None = None
    kind: str = "plot"

    def to_json(self) -> dict[str, Any]:
        """What the script of the page needs, in the types of JSON."""
        return {
            "views": {"|".join(view.key): {"figure": view.figure, "alt": view.alt} for view in self.views},
            "choices": len(self.choices),
        }


@dataclass(frozen=True)
class Facts:
    """Names and values; a pair without a value is left out."""

    rows: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True)
class Note:
    """A paragraph; `tone` is `"plain"`, `"warning"` or `"absent"`: something that was not measured."""

    text: str
    tone: str = "plain"
    kind: str = "note"


@dataclass(frozen=True)
class Card:
    """One finding in large type; `tone` is `"plain"`, `"good"`, `"bad"` or `"unknown"`."""

    title: str
    value: str
    detail: str
    tone: str = "plain"


@dataclass(frozen=True)
class Cards:
    """Findings side by side."""

    cards: tuple[Card, ...]
    kind: str = "cards"


@dataclass(frozen=True)
class Picture:
    """A picture within the page.

    Attributes:
        source: A `data:` address.
        alt: What it shows.
        caption: What to look at.
        width: Pixels.
        height: Pixels.
    """

    source: str
    alt: str
    caption: str
    width: int
    height: int
    kind: str = "picture"


@dataclass(frozen=True)
class Photo:
    """The photograph on which the reader walks through the partial tokens.

    Attributes:
        plain: The photograph as the model sees it, a `data:` address.
        tinted: The same, tinted by windows.
        owners: The partial token that sees each patch, `[rows][columns]`; empty without partial tokens.
        num_partial: P.
        num_global: G.
        window: W, image tokens that a partial token sees.
        attends: For each kind of self-attention: in which layers, and how far a partial token sees (`None`: every one).
    """

    plain: str
    tinted: str
    owners: tuple[tuple[int, ...], ...]
    num_partial: int
    num_global: int
    window: int
    attends: tuple[tuple[str, int | None], ...]
    kind: str = "photo"

    def to_json(self) -> dict[str, Any]:
        """What the script of the page needs, in the types of JSON."""
        return {
            "owners": self.owners,
            "numPartial": self.num_partial,
            "numGlobal": self.num_global,
            "window": self.window,
            "attends": self.attends,
        }


@dataclass(frozen=True)
class PrecisionRow:
    """One block of the network: the precision of each product, `""` where the block has none of that name."""

    block: str
    cells: tuple[tuple[str, str, str], ...]  # precision, mark of the reason, class of the cell


@dataclass(frozen=True)
class PrecisionMap:
    """Which product of which block is computed in which precision.

    Attributes:
        variant: Name of the variant.
        summary: Its precision in words.
        parts: Groups of rows with the same columns: title, columns, rows.
        reasons: Mark and reason of what stayed in float.
        is_open: Whether it is shown at once, or when it is asked for.
    """

    variant: str
    summary: str
    parts: tuple[tuple[str, tuple[str, ...], tuple[PrecisionRow, ...]], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    is_open: bool = True
    kind: str = "precision"


@dataclass(frozen=True)
class GalleryItem:
    """A small picture with what is to be said about it.

    Attributes:
        source: A `data:` address; empty without a picture.
        alt: What it shows.
        title: A line below it.
        lines: Further lines.
        tone: `"plain"`, `"good"` or `"bad"`.
    """

    source: str
    alt: str
    title: str
    lines: tuple[str, ...]
    tone: str = "plain"


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    items: tuple[GalleryItem, ...]
    kind: str = "gallery"


Block: TypeAlias = Table | Plot | Facts | Note | Cards | Picture | Photo | PrecisionMap | Gallery


@dataclass(frozen=True)
class Heading:
    """What stands at the top of a page.

    Attributes:
        kind: What sort of page it is, such as `"benchmark"`.
        title: What it is about.
        where: On what.
        created: When, ISO 8601.
    """

    kind: str
    title: str
    where: str
    created: str


@dataclass(frozen=True)
class Section:
    """A part of the page with a title of its own.

    Attributes:
        anchor: Unique in the page.
        title: Its title.
        blocks: What it shows, in order.
        lead: One or two sentences before it.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    tone: str = field(default="plain")
