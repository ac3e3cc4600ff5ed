"""Train a small ParGo multimodal model from nothing: data, tower, projector and language model.

    python examples/train_sample/train.py --output DIR
    python examples/train_sample/train.py --output DIR --projector qformer --seed 1 --resume

Writes `DIR/model.safetensors` (official key layout), `DIR/llm/` (transformers), `DIR/CARD.md`, `DIR/result.json` with
the scores, and `DIR/log.jsonl`. What does not depend on the projector is kept in `DIR/work/` (or `--work`), and is
opened rather than made again by other runs. docs/training.md says what is trained on what.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import get_args

import torch
from card import write_card
from one_run import run_once
from preparation import prepare
from settings import plan, preparation
from tower_training import VISION
from training import Log

from pargo_export.config import ProjectorKind


def main() -> None:
    """Train, write, score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="Folder to write to.")
    parser.add_argument("--projector", choices=get_args(ProjectorKind), default="pargo")
    parser.add_argument("--seed", type=int, default=0, help="Of weights and order; the data has seed 0.")
    parser.add_argument(
        "--work", type=Path, help="Folder of data, tower and features; OUTPUT/work by default."
    )
    parser.add_argument("--caption-steps", type=int, help="Steps of stage 1.")
    parser.add_argument("--steps", type=int, help="Steps of stage 2.")
    parser.add_argument("--threads", type=int, default=1, help="Of PyTorch; more than one gains little here.")
    parser.add_argument("--processes", type=int, default=2, help="That draw images.")
    parser.add_argument("--resume", action="store_true", help="Go on from the last checkpoints.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = options.work or options.output / "work"
    prepared = prepare(
        work,
        preparation(),
        VISION,
        Log(work / "log.jsonl"),
        processes=options.processes,
        resume=options.resume or (work / "tower.pt").is_file(),
    )
    result = run_once(
        options.output,
        prepared,
        VISION,
        options.projector,
        plan(options.caption_steps, options.steps),
        seed=options.seed,
        resume=options.resume,
    )
    write_card(options.output, result, prepared.seconds)
    print(json.dumps(result["tasks"], indent=2))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
