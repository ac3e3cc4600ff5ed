"""Sizes and lengths of the sample that is shipped, and of the runs that are compared: the same for all projectors."""

from __future__ import annotations

from preparation import Preparation
from stages import Plan
from training import Schedule

__all__ = ["plan", "preparation"]

_CAPTION_STEPS, _QUESTION_STEPS = 800, 1000


def preparation(seed: int = 0) -> Preparation:
    """Return what the shipped sample was made with."""
    return Preparation(
        seed=seed,
        train_images=20_000,
        held_out_images=128,
        images_per_task=60,
        tower=Schedule(steps=2200, learning_rate=2e-3, warmup=100, save_every=200, log_every=50),
    )


def plan(caption_steps: int | None = None, question_steps: int | None = None) -> Plan:
    """Return the two stages; other numbers of steps stretch the schedule."""
    return Plan(
        captions=_stage(_CAPTION_STEPS if caption_steps is None else caption_steps),
        questions=_stage(_QUESTION_STEPS if question_steps is None else question_steps),
        caption_batch=12,
        question_batch=8,
        questions_per_image=20,
        caption_length=92,
        question_length=14,
    )


def _stage(steps: int) -> Schedule:
    return Schedule(steps=steps, learning_rate=1e-3, warmup=100, save_every=200, log_every=50)
