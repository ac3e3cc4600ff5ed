"""Drop weights that no visual token depends on."""

from __future__ import annotations

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import QueryEmbedding
from pargo_export.model.tower import VisionTower
from pargo_export.rewrite.rewrite import Rewrite, set_parameter

__all__ = ["DROP_UNUSED_WEIGHTS"]


def _apply(model: VisualFrontEnd) -> int:
    tower = model.tower
    count = 0
    if isinstance(tower, VisionTower):  # of CLIP and SigLIP only what runs is loaded
        count = sum(module is not None for module in (tower.final_norm, tower.head))
        tower.final_norm = tower.head = None
    embedding = getattr(model.projector, "embedding", None)
    if isinstance(embedding, QueryEmbedding):
        used = embedding.query_tokens.shape[1]
        if embedding.position.shape[0] > used:
            set_parameter(embedding, "position", embedding.position[:used].clone())
            count += 1
    return count


DROP_UNUSED_WEIGHTS = Rewrite(
    name="drop-unused-weights",
    summary="drop the tower's final norm and CLIP head, and position rows past the last query",
    why_exact="the projector path never reads them",
    apply=_apply,
    acts_on="both",
)
