"""The first screen: what each variant scores, and whether it differs."""

from __future__ import annotations

from pargo_export.evaluation.mme.records import Comparison, MmeEvaluation
from pargo_export.evaluation.report.style import interval, signed
from pargo_export.report.parts import Block, Card, Cards, Note, Section

__all__ = ["headline", "warnings"]


def headline(found: MmeEvaluation) -> Section:
    """Show the total of the first variant, or of the baseline, and each comparison."""
    names = {item.baseline for item in found.comparisons}
    first = next((item for item in found.variants if item.name in names), found.variants[0])
    has_additional = "Additional" in first.scores.groups
    detail = f"{first.name}; Perception and Cognition, at most 2800"
    if has_additional:
        detail += f"; {first.scores.total_with_additional:.2f} with the tasks that MME does not have"
    cards = [Card("MME total", f"{first.scores.total:.2f}", detail)]
    cards += [_card(item, has_additional=has_additional) for item in found.comparisons]
    return Section("headline", "In short", (Cards(tuple(cards)),))


def warnings(found: MmeEvaluation) -> Section | None:
    """Repeat what makes the numbers doubtful; `None` if nothing does."""
    if not found.warnings:
        return None
    blocks: tuple[Block, ...] = tuple(Note(warning, "warning") for warning in found.warnings)
    return Section("warnings", "Warnings", blocks, "What makes these numbers doubtful.", tone="warning")


def _card(item: Comparison, *, has_additional: bool) -> Card:
    change = item.difference_with_additional if has_additional else item.difference
    spread = item.interval_with_additional if has_additional else item.interval
    level = "" if spread is None else f", {spread.level:.0%} interval {interval(spread)}"
    scope = "all tasks" if has_additional else "total"
    tone = {"significantly worse": "bad", "no significant change": "plain"}.get(item.verdict, "good")
    return Card(
        f"{item.variant} beside {item.baseline}",
        signed(change),
        f"{scope}{level}; {item.verdict}: {item.num_gained} gained, {item.num_lost} lost of {item.num_questions}, McNemar "
        f"p {item.p_value:.2g}",
        tone,
    )
