"""One training loop for every stage: AdamW, linear warm-up and decay, clipping, a log of JSON lines, exact resuming.

What a step sees is a function of seed and step alone, and nothing draws from PyTorch's generator during training. So
weights, optimizer and step are the whole state: an interrupted run that is resumed ends with the same bits.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pargo_export.bundle import atomic_write

__all__ = ["Log", "Schedule", "Stage", "run_stage"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak of it.
        warmup: Steps of linear increase to it.
        decay: Fraction of the steps over which it falls to zero at the end.
        weight_decay: Of matrices; vectors have none.
        clip: Largest norm of a gradient.
        save_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 50
    decay: float = 0.3
    weight_decay: float = 0.01
    clip: float = 1.0
    save_every: int = 200
    log_every: int = 25

    def rate(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        falling = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return self.learning_rate * min(1.0, rising, falling)


class Log:
    """Append JSON lines to a file and show them on stderr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **values: Any) -> None:
        """Write one line."""
        line = json.dumps(values)
        with self.path.open("a") as stream:
            stream.write(line + "\n")
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Stage:
    """What one stage trains.

    Attributes:
        name: Of its checkpoint and in the log.
        model: What is trained; parameters that need no gradient stay as they are.
        loss: Loss of a step, a scalar that depends on the step's number alone.
        schedule: How long and how fast.
        check: Called at the end and at every checkpoint; what it returns goes into the log.
    """

    name: str
    model: nn.Module
    loss: Callable[[int], Tensor]
    schedule: Schedule
    check: Callable[[], dict[str, float]] | None = None


def run_stage(stage: Stage, directory: Path, log: Log, *, resume: bool, stop_after: int | None = None) -> int:
    """Train a stage to its end, from the last checkpoint if `resume`.

    Args:
        stage: What to train.
        directory: Where the checkpoint `NAME.pt` is kept.
        log: Gets a line every `log_every` steps.
        resume: Go on from the checkpoint, if there is one; a finished stage is only loaded.
        stop_after: Stop, with a checkpoint, after this many steps: an interruption, for tests.

    Returns:
        Steps done so far.
    """
    schedule, path = stage.schedule, directory / f"{stage.name}.pt"
    optimizer = _optimizer(stage.model, schedule)
    step = 0
    if resume and path.is_file():
        stored = torch.load(path, weights_only=True)
        stage.model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        step = stored["step"]
    stage.model.train()
    began, seen, total = time.monotonic(), step, torch.zeros(())
    last = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
    while step < last:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss = stage.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(_trained(stage.model), schedule.clip)
        optimizer.step()
        total += loss.detach()
        step += 1
        if step % schedule.log_every == 0 or step == last:
            seconds = (time.monotonic() - began) / (step - seen)
            mean = float(total) / (step - seen)
            log.write(stage=stage.name, step=step, loss=round(mean, 4), seconds_per_step=round(seconds, 3))
            began, seen, total = time.monotonic(), step, torch.zeros(())
        if step % schedule.save_every == 0 or step == last:
            _save(path, stage.model, optimizer, step)
            if stage.check is not None:
                log.write(stage=stage.name, step=step, **stage.check())
                stage.model.train()
                began = time.monotonic()
    stage.model.eval()
    return step


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    parameters = _trained(model)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), foreach=True)


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    buffer = io.BytesIO()
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda stream: stream.write(buffer.getvalue()))
