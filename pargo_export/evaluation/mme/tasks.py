"""The tasks of MME (arXiv 2306.13394) and their two groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

__all__ = ["COGNITION", "GROUPS", "OFFICIAL_TASKS", "PERCEPTION", "Group", "group_of", "in_order"]

Group = Literal["Perception", "Cognition", "Additional"]

# In the order of the official calculator.
PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
OFFICIAL_TASKS = (*PERCEPTION, *COGNITION)
# `Additional` is ours: tasks in the form of MME that MME does not have; they are outside of the official totals.
GROUPS: dict[Group, tuple[str, ...]] = {"Perception": PERCEPTION, "Cognition": COGNITION, "Additional": ()}


def group_of(task: str) -> Group:
    """Return the group of a task; one that MME does not have is `Additional`."""
    if task in PERCEPTION:
        return "Perception"
    return "Cognition" if task in COGNITION else "Additional"


def in_order(tasks: Iterable[str]) -> list[str]:
    """Sort tasks: those of MME in its order, then the others by name."""
    order = {task: index for index, task in enumerate(OFFICIAL_TASKS)}
    return sorted(tasks, key=lambda task: (order.get(task, len(order)), task))
