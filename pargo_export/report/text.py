"""How numbers and names are written in the report."""

from __future__ import annotations

import html
import textwrap

from pargo_export.bench.records import Boundary, Clock, Interval, Measurement

__all__ = [
    "BOUNDARY_NAMES",
    "CLOCK_NAMES",
    "escape",
    "images",
    "interval",
    "join",
    "level",
    "memory",
    "milliseconds",
    "number",
    "plural",
    "shorten",
    "times_as_fast",
    "where",
    "wrap",
]

BOUNDARY_NAMES: dict[Boundary, str] = {
    "preprocess": "preprocess",
    "host_to_device": "host to device",
    "compute": "compute",
    "device_to_host": "device to host",
    "run": "run",
    "end_to_end": "end to end",
}
CLOCK_NAMES: dict[Clock, str] = {"host": "host clock", "cuda-events": "CUDA events"}
_BYTES = ("B", "kB", "MB", "GB", "TB")
_TITLE_WIDTH = 36  # characters of a title within a plot
_LABEL_WIDTH = 17  # characters of a label beside a plot, so that a phone has room for the plot


def number(value: float | None, digits: int = 3) -> str:
    """`0.0123`, `1.75`, `24.3`, `1,234`: significant digits, or all before the decimal point; `-` for nothing."""
    if value is None:
        return "-"
    if value and abs(value) < 0.001:
        return f"{value:.{digits}g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    # Zeros at the end count: 1.70 is not 1.7.
    text = f"{value:#.{digits}g}"
    return text.removesuffix(".")


def milliseconds(value: float | None) -> str:
    """`1.75 ms`; `-` for nothing."""
    return "-" if value is None else f"{number(value, 4)} ms"


def interval(found: Interval | None) -> str:
    """`1.74 to 1.76`; `-` for nothing."""
    if found is None:
        return "-"
    low, high = (number(value, 4) for value in (found.low, found.high))
    return f"{low} to {high}"


def level(found: Interval) -> str:
    """`95% interval`."""
    return f"{found.level:.0%} interval"


def times_as_fast(ratio: float) -> str:
    """`2.56x`, from a ratio of times (candidate by baseline)."""
    return f"{number(1 / ratio)}x" if ratio > 0 else "-"


def memory(num_bytes: int | None) -> str:
    """`1.30 GB`, in powers of 1000; `-` for nothing."""
    if num_bytes is None:
        return "-"
    value, unit = float(num_bytes), 0
    while value >= 1000 and unit < len(_BYTES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{number(value)} {_BYTES[unit]}"


def images(count: int) -> str:
    """`1 image`, `8 images`."""
    return plural(count, "image")


def plural(count: int, word: str) -> str:
    """`1 product`, `3 products`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def shorten(name: str) -> str:
    """Cut a long name to what fits beside a plot; the tables have it whole."""
    return name if len(name) <= _TITLE_WIDTH else f"{name[: _TITLE_WIDTH - 1]}…"


def join(names: tuple[str, ...] | list[str], word: str = "and") -> str:
    """`a, b and c`."""
    *first, last = names or ("",)
    return f"{', '.join(first)} {word} {last}" if first else last


def where(measured: Measurement) -> str:
    """`end to end, host clock, batch 1`: what every time must be read with."""
    text = f"{BOUNDARY_NAMES[measured.boundary]}, {CLOCK_NAMES[measured.clock]}, batch {measured.batch}"
    return text if measured.concurrency == 1 else f"{text}, {measured.concurrency} callers"


def escape(text: str) -> str:
    """Escape a text of the data for plotly.js, which reads a little HTML in labels."""
    return html.escape(text, quote=False).replace("\n", " ").replace("%{", "%&#123;")  # no template either


def wrap(text: str) -> str:
    """Break a label into at most three short lines, escaped for plotly.js; the tables have it whole."""
    lines = textwrap.wrap(text, _LABEL_WIDTH, max_lines=3, placeholder="…", break_on_hyphens=True)
    return "<br>".join(escape(line) for line in lines)
