"""Fold the class token into the position table.

    [class; patches] + position  =  [0; patches] + position'      position'[0] = class + position[0]

A constant padding replaces a concatenation with a token that must first be expanded to the batch, which
is the only place where the tower's graph would ask for the batch size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import ClassAndPosition
from pargo_export.model.vit_tower import VitEmbedding
from pargo_export.rewrite.rewrite import Rewrite

__all__ = ["FOLD_CLASS_TOKEN", "PaddedPosition"]


class PaddedPosition(nn.Module):
    """Add the position table to the patches, with a zero row in front for the class token."""

    def __init__(self, position: Tensor, class_token: Tensor) -> None:
        super().__init__()
        table = position.detach().clone()  # [1, 1+N, C] or [1+N, C]
        table[..., :1, :] += class_token
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, patches: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, 1+N, C]`."""
        return functional.pad(patches, (0, 0, 1, 0)) + self.table


def _apply(model: VisualFrontEnd) -> int:
    embedding = model.tower.embedding
    if not isinstance(embedding, (ClassAndPosition, VitEmbedding)) or embedding.class_token is None:
        return 0
    model.tower.embedding = PaddedPosition(embedding.position, embedding.class_token)
    return 1


FOLD_CLASS_TOKEN = Rewrite(
    name="fold-class-token",
    summary="fold the class token into the position table",
    why_exact="both are added before anything reads them",
    apply=_apply,
    acts_on="encoder",
)
