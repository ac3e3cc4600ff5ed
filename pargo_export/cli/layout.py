"""How results look on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from pargo_export.signature import TensorSpec

__all__ = ["count", "facts", "figure", "heading", "mark", "size", "table", "tensor", "verbatim"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def heading(text: str) -> Text:
    """A title with an empty line before it."""
    return Text(f"\n{text}", style="bold")


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one pair a line; rows without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(f"  {name}", value)
    return grid


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, num_left: int = 1) -> Table:
    """A table without lines: the first `num_left` columns to the left, numbers to the right."""
    # The first column holds names, which are easier to read whole.
    found = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="cyan")
    for index, column in enumerate(columns):
        title = f"  {column}" if index == 0 else column
        found.add_column(
            title, justify="left" if index < num_left else "right", overflow="fold", no_wrap=index == 0
        )
    for first, *rest in rows:
        found.add_row(f"  {first}", *rest)
    return found


def mark(ok: bool) -> Text:
    """A green check mark or a red cross."""
    return Text("✓", style="green") if ok else Text("✗", style="bold red")


def count(number: int) -> str:
    """`325,868,224`."""
    return f"{number:,}"


def size(num_bytes: float) -> str:
    """`1.3 MB`, in powers of 1000."""
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{num_bytes:.3g} {_UNITS[unit]}"


def figure(number: float) -> str:
    """Three significant digits, or all before the decimal point: `0.0123`, `12.3`, `1,234`."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def tensor(spec: TensorSpec) -> str:
    """`pixel_values float32[batch, 3, 336, 336]`."""
    return f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]"


def verbatim(text: str) -> Text:
    """Text to copy, such as a command: in one line, however wide the terminal is."""
    return Text(text, no_wrap=True, overflow="ignore")
