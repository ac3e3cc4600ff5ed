"""Compare projectors: the same tower, data, language model, steps and order; several seeds each.

    python examples/train_sample/study.py --output DIR
    python examples/train_sample/study.py --output DIR --summary-only     # from the runs that are finished

Every run lies in `DIR/PROJECTOR-SEED/` as `train.py` writes it and is skipped if it is finished, so the study goes on
where it was interrupted. The summary is `DIR/study.json`; `benchmarks/accuracy_page.py` makes tables of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from one_run import RESULT, run_once
from preparation import prepare
from settings import plan, preparation
from study_summary import summarise
from tower_training import VISION
from training import Log

from pargo_export.bundle import atomic_write
from pargo_export.config import ProjectorKind

_TOWER_NOTE = (
    "one tower, trained once, frozen, and shared by all runs; intervals do not cover its own variation"
)


def main() -> None:
    """Train what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="Folder of the study.")
    parser.add_argument(
        "--work", type=Path, help="Folder of data, tower and features; OUTPUT/work by default."
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--projectors", default=",".join(get_args(ProjectorKind)))
    parser.add_argument("--caption-steps", type=int, help="Steps of stage 1.")
    parser.add_argument("--steps", type=int, help="Steps of stage 2.")
    parser.add_argument("--parallel", type=int, default=2, help="Runs at a time, of one thread each.")
    parser.add_argument("--summary-only", action="store_true", help="Train nothing.")
    options = parser.parse_args()
    work = options.work or options.output / "work"
    # Seed by seed, so that an unfinished study compares all projectors on the same seeds.
    runs = [(kind, int(seed)) for seed in options.seeds.split(",") for kind in options.projectors.split(",")]
    steps = (options.caption_steps, options.steps)
    if not options.summary_only:
        _prepare(work)  # once, before several processes want it
        missing = [run for run in runs if not (_folder(options.output, *run) / RESULT).is_file()]
        arguments = [(options.output, work, kind, seed, steps) for kind, seed in missing]
        with multiprocessing.get_context("spawn").Pool(options.parallel, maxtasksperchild=1) as pool:
            pool.starmap(_train, arguments, chunksize=1)
    _summarise(options.output, runs, steps)


def _folder(output: Path, kind: str, seed: int) -> Path:
    return output / f"{kind}-{seed}"


def _prepare(work: Path) -> Any:
    torch.set_num_threads(1)
    return prepare(work, preparation(), VISION, Log(work / "log.jsonl"), processes=2, resume=True)


def _train(
    output: Path, work: Path, kind: ProjectorKind, seed: int, steps: tuple[int | None, int | None]
) -> None:
    run_once(_folder(output, kind, seed), _prepare(work), VISION, kind, plan(*steps), seed=seed, resume=True)


def _summarise(output: Path, runs: Sequence[tuple[str, int]], steps: tuple[int | None, int | None]) -> None:
    files = [_folder(output, *run) / RESULT for run in runs]
    results = [json.loads(file.read_text()) for file in files if file.is_file()]
    summary = summarise(results)
    document = {
        "what": "MME-form scores of small multimodal models on synthetic images; 100 acc + 100 acc+ a task",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "tower": _TOWER_NOTE,
        "data": asdict(preparation()),
        "plan": asdict(plan(*steps)),
        "num_runs": len(results),
        "missing": [
            f"{kind}-{seed}" for (kind, seed), file in zip(runs, files, strict=True) if not file.is_file()
        ],
        "interval": "95 %, Student's t over seeds",
        **summary,
        "runs": results,
    }
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "study.json", lambda stream: stream.write(json.dumps(document, indent=1).encode()))
    for kind, tasks in summary["scores"].items():
        print(f"{kind}: total {tasks['total']['mean']:.1f}, {len(tasks['total']['values'])} seeds")


if __name__ == "__main__":
    main()
