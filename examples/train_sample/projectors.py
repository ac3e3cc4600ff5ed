"""The projectors that are compared, at one budget of visual tokens as far as their designs allow."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pargo_export.config import ModelConfig, ProjectorConfig, ProjectorKind, VisionConfig
from pargo_export.model.projector import QueryProjector, build_projector

__all__ = ["PROJECTORS", "make_projector", "model_config"]

_QUERIES = {"hidden_size": 128, "num_layers": 3, "num_heads": 4, "intermediate_size": 384}
# Of 144 image tokens: windows of 4 give 36 partial tokens, groups of 4 give 36; the query projectors have 40 tokens.
PROJECTORS: dict[ProjectorKind, dict[str, Any]] = {
    "pargo": _QUERIES | {"num_partial_tokens": 36, "num_global_tokens": 4, "max_position_embeddings": 48},
    "qformer": _QUERIES | {"num_global_tokens": 40, "max_position_embeddings": 48},
    "linear": {"tokens_per_group": 4},
    "mlp": {"tokens_per_group": 4},
}
_QUERY_STD = 0.02  # as BERT


def model_config(kind: ProjectorKind, vision: VisionConfig, llm_width: int) -> ModelConfig:
    """Return the configuration of a front-end with this projector."""
    projector = ProjectorConfig.parse(
        PROJECTORS[kind] | {"kind": kind, "encoder_width": vision.width, "llm_hidden_size": llm_width},
        source=f"projector {kind}",
    )
    return ModelConfig(vision=vision, projector=projector)


def make_projector(config: ModelConfig, *, seed: int) -> nn.Module:
    """Return a projector with random weights."""
    torch.manual_seed(seed)
    projector = build_projector(config.projector)
    if isinstance(projector, QueryProjector):
        nn.init.normal_(projector.embedding.query_tokens, std=_QUERY_STD)
        nn.init.normal_(projector.embedding.position, std=_QUERY_STD)
    return projector
