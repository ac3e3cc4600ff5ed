"""Take the screenshots of docs/report.md from a saved result.

    pargo-export bench bundle/ ... -o result.json
    python benchmarks/report_screenshots.py result.json --bundle bundle/

Needs the extras report and bench, playwright, Pillow, and Chromium. Writes report-light.png (first screens, light) and
report-dark.png (the masks, dark) to docs/figures/.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from pargo_export.bench import read_result
from pargo_export.bundle import Bundle, atomic_write
from pargo_export.report import write_report

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
COLORS = 256  # of the palette: plots and text need no more, and the files stay small
MOST_BYTES = 250_000


def main() -> None:
    """Write the report to a temporary file, open it twice, and save what is seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="what `pargo-export bench --output` wrote")
    parser.add_argument("--bundle", type=Path, help="the bundle that was measured")
    parser.add_argument("--output", type=Path, default=FIGURES, help="directory for the pictures")
    chosen = parser.parse_args()
    bundle = None if chosen.bundle is None else Bundle.open(chosen.bundle)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = write_report(read_result(chosen.result), bundle, Path(folder) / "report.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        for scheme, anchor, height in (("light", "headline", 1500), ("dark", "masks", 1100)):
            page = browser.new_page(viewport={"width": 1200, "height": height}, color_scheme=scheme)
            page.goto(page_path.resolve().as_uri())
            page.wait_for_selector("html[data-ready=true]", state="attached")
            show(page, anchor if anchor == "headline" or page.locator(f"#{anchor}").count() else "latency")
            save(page.screenshot(), chosen.output / f"report-{scheme}.png")
        browser.close()


def show(page: Page, anchor: str) -> None:
    """Scroll to a section and wait for the plots that are near."""
    if anchor != "headline":
        page.locator(f"#{anchor}").evaluate("e => e.scrollIntoView({behavior: 'instant'})")
    page.wait_for_timeout(3000)


def save(content: bytes, path: Path) -> None:
    """Save a picture with a small palette.

    Raises:
        SystemExit: It is larger than documentation should carry.
    """
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    if buffer.tell() > MOST_BYTES:
        raise SystemExit(f"{path} would have {buffer.tell():,} bytes, expected at most {MOST_BYTES:,}")
    atomic_write(path, buffer.getvalue())
    print(f"{path}: {picture.width} x {picture.height}, {buffer.tell():,} bytes")


if __name__ == "__main__":
    main()
