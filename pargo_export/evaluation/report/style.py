"""How variants are drawn, and how questions and signed numbers are written."""

from __future__ import annotations

from pargo_export.bench.records import Interval
from pargo_export.evaluation.mme.answering import QUESTION_PLACE
from pargo_export.evaluation.mme.records import MmeEvaluation
from pargo_export.evaluation.mme.results import flatten
from pargo_export.report.parts import LegendEntry

__all__ = ["colors", "interval", "legend", "question", "signed"]

_NUM_COLORS = 8  # series-0... in report.css


def colors(found: MmeEvaluation) -> dict[str, str]:
    """Return the CSS colour of each variant; the baseline is gray."""
    baselines = {item.baseline for item in found.comparisons}
    names = [item.name for item in found.variants if item.name not in baselines]
    drawn = {name: f"var(--series-{index % _NUM_COLORS})" for index, name in enumerate(names)}
    return {item.name: drawn.get(item.name, "var(--baseline-0)") for item in found.variants}


def legend(found: MmeEvaluation) -> tuple[LegendEntry, ...]:
    """Return the legend of all variants."""
    return tuple(LegendEntry(name, name, color) for name, color in colors(found).items())


def question(found: MmeEvaluation, prompt: str) -> str:
    """Take the question out of its prompt, if the template is known."""
    if found.language_model is None:
        return prompt
    before, _, after = flatten(found.language_model.template).partition(QUESTION_PLACE)
    return prompt.removeprefix(before).removesuffix(after)


def signed(value: float) -> str:
    """`+1.50`, `-12.00`, `0.00`."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def interval(found: Interval | None) -> str:
    """`-3.10 to +1.20`; `-` for nothing."""
    return "-" if found is None else f"{signed(found.low)} to {signed(found.high)}"
