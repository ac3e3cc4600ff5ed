"""Render the page: template, style and scripts in one file, which may run nothing but those scripts.

Texts of the data are escaped by Jinja2; data of the plots stand in JSON islands, which are not executed. On top of that
the Content-Security-Policy names the scripts of the page by their hashes and forbids every connection, so that a text
that got through could neither run nor call home.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from pargo_export._version import __version__
from pargo_export.optional import require
from pargo_export.report.parts import Heading, Section

__all__ = ["island", "policy", "render_page"]

_PURPOSE = "write the report"
_SCRIPTS = ("plots.js", "photo.js", "main.js")


def render_page(heading: Heading, sections: Sequence[Section]) -> str:
    """Render the whole page.

    Args:
        heading: What the page is about.
        sections: In the order in which they are read.

    Raises:
        MissingDependencyError: plotly or Jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report", purpose=_PURPOSE)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _text("templates", name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["island"] = lambda value: jinja2.utils.markupsafe.Markup(island(value))
    script = "\n".join(_text("static", name) for name in _SCRIPTS)
    plotly, packed = _plotly()
    return str(
        environment.get_template("page.html").render(
            heading=heading,
            sections=sections,
            version=__version__,
            style=_text("static", "report.css"),
            script=script,
            plotly=packed,
            policy=policy(script, plotly),
        )
    )


def island(value: Any) -> str:
    """Write JSON that may stand in a `<script type="application/json">`: nothing in it can end the element.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def policy(*scripts: str) -> str:
    """Content-Security-Policy that lets exactly these scripts run, and no connection be made."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts
    )
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hashes}",
            "style-src 'unsafe-inline'",  # plotly.js writes style attributes
            "img-src data:",
            "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


@cache
def _plotly() -> tuple[str, str]:
    """Return plotly.js, and the same packed for a page: gzip in base64, a third of its size.

    The Python package has the full bundle alone. The page unpacks it with `DecompressionStream`, which browsers have
    since 2023.
    """
    source = str(require("plotly.offline", extra="report", purpose=_PURPOSE).get_plotlyjs())
    packed = gzip.compress(source.encode(), compresslevel=9, mtime=0)
    return source, base64.b64encode(packed).decode()


def _text(folder: str, name: str) -> str:
    return (resources.files("pargo_export.report") / folder / name).read_text(encoding="utf-8")
