"""One trained sample: projector and language model on the features of the frozen tower, written and scored."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from exporting import save_sample
from fused_attention import fuse_attention
from packing import PackedModel
from preparation import Prepared
from projectors import make_projector, model_config
from scoring import score_sample, table_of
from small_llm import LLM_WIDTH, make_language_model
from stages import Plan, run_stages
from texts import prefix_tokens
from training import Log

from pargo_export.bundle import atomic_write
from pargo_export.config import ProjectorKind, VisionConfig

__all__ = ["RESULT", "run_once"]

RESULT = "result.json"


def run_once(
    directory: Path,
    prepared: Prepared,
    vision: VisionConfig,
    kind: ProjectorKind,
    plan: Plan,
    *,
    seed: int,
    resume: bool,
) -> dict[str, Any]:
    """Train one projector with a language model, write both, score what was written.

    Args:
        directory: Gets checkpoints, `log.jsonl`, `model.safetensors`, `llm/` and `result.json`.
        prepared: Data, tokenizer and tower.
        vision: Sizes of the tower.
        kind: The projector.
        plan: The two stages.
        seed: Chooses initial weights and the order of the data.
        resume: Go on from the last checkpoint.

    Returns:
        What is in `result.json`: projector, seed, seconds, scores of each task.
    """
    began = time.monotonic()
    log = Log(directory / "log.jsonl")
    config = model_config(kind, vision, LLM_WIDTH)
    language_model = make_language_model(prepared.tokenizer, seed=seed)
    model = PackedModel(make_projector(config, seed=seed), language_model, prefix_tokens(prepared.tokenizer))
    fuse_attention(model, config.num_image_tokens)
    run_stages(
        model,
        prepared.tokenizer,
        prepared.train,
        prepared.held_out,
        plan,
        directory,
        log,
        seed=seed,
        resume=resume,
    )
    trained = time.monotonic()
    save_sample(directory, config, prepared.tower, model, prepared.tokenizer)
    scores = score_sample(directory, prepared.mme)
    result = {
        "projector": kind,
        "seed": seed,
        "visual_tokens": config.num_visual_tokens,
        "tower_parameters": sum(p.numel() for p in prepared.tower.parameters()),
        "projector_parameters": sum(p.numel() for p in model.projector.parameters()),
        "language_model_parameters": sum(p.numel() for p in language_model.parameters()),
        "caption_steps": plan.captions.steps,
        "question_steps": plan.questions.steps,
        "training_seconds": round(trained - began, 1),
        "scoring_seconds": round(time.monotonic() - trained, 1),
        "tasks": table_of(scores),
    }
    atomic_write(directory / RESULT, lambda stream: stream.write(json.dumps(result, indent=2).encode()))
    return result
