"""Sizes and lengths of the sample that is shipped, and of the runs that are compared: the same for all projectors."""

from __future__ import annotations

from preparation import Preparation
from stages import Plan
from training import Schedule

__all__ = ["plan", "preparation"]

_CAPTION_STEPS, _QUESTION_STEPS = 600, 3000


def preparation(seed: int = 0) -> Preparation:
    """Return what the shipped sample was made with."""
    return Preparation(
        seed=seed,
        train_images=20_000,
        held_out_images=128,
        images_per_task=60,
        tower=Schedule(steps=2200, learning_rate=2e-3, warmup=100, decay=0.8, save_every=200, log_every=50),
    )


def plan(caption_steps: int | None = None, question_steps: int | None = None) -> Plan:
    """Return the two stages; other numbers of steps stretch the schedule."""
    first = _CAPTION_STEPS if caption_steps is None else caption_steps
    second = _QUESTION_STEPS if question_steps is None else question_steps
    return Plan(
        # The first stage ends at its full rate: what follows goes on with the same texts and more.
        captions=Schedule(steps=first, decay=0.0, save_every=200, log_every=50),
        questions=Schedule(steps=second, save_every=200, log_every=50),
        steps_per_thing=first // 8,
    )
