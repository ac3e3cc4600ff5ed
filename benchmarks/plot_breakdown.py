"""Draw where the time of one image batch goes, from the breakdowns of `frontend_gpu.py --breakdown`.

    python benchmarks/plot_breakdown.py result.json docs/figures/gpu-breakdown.svg

Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from gpu_breakdown import KINDS

# Readable on white and on black, also for the colour-blind (Okabe and Ito).
_COLOURS = dict(zip(KINDS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"), strict=True))
_TEXT = "#888888"


def main() -> None:
    """Draw one panel a batch size, one bar a candidate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--floor", type=Path, help="result to take the floor from; by default the same")
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text("utf-8"))
    if arguments.floor:
        result["floors"] = json.loads(arguments.floor.read_text("utf-8"))["floors"]

    mpl.rcParams.update({"svg.hashsalt": "pargo-export", "text.color": _TEXT, "axes.edgecolor": _TEXT})
    mpl.rcParams.update(
        {"axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT, "font.size": 11}
    )
    figure, panels = plt.subplots(len(arguments.batch), 1, figsize=(9, 2.1 * len(arguments.batch)))
    for panel, batch in zip([panels] if len(arguments.batch) == 1 else panels, arguments.batch, strict=True):
        _draw(panel, result, batch)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(KINDS), frameon=False)
    figure.suptitle(f"Image to visual tokens, {result['environment']['gpu']}, CUDA graph")
    figure.tight_layout(rect=(0, 0.07, 1, 0.99))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, transparent=True, metadata={"Date": None})


def _draw(panel: plt.Axes, result: dict, batch: int) -> None:
    prefix = f"all, batch {batch}, "
    bars = {
        key.removeprefix(prefix): value["kinds_ms"]
        for key, value in result["breakdowns"].items()
        if key.startswith(prefix)
    }
    floor = result["floors"].get(str(batch))
    for row, (_, kinds) in enumerate(reversed(bars.items())):
        left = 0.0
        for kind in KINDS:
            width = max(kinds[kind], 0.0)  # launches that overlap leave less than no gap
            panel.barh(row, width, left=left, color=_COLOURS[kind], label=kind if row == 0 else None)
            left += width
        panel.text(left, row, f" {left:.2f} ms", va="center")
    if floor:
        panel.axvline(floor["tower_ms"] + floor["projector_ms"], color=_TEXT, linestyle="--")
    panel.set_yticks(range(len(bars)), list(reversed(bars)))
    panel.set_title(f"batch {batch} (dashed: library products and attention alone)", fontsize=11)
    panel.set_xlabel("milliseconds")
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
