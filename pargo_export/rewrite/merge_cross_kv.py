"""Project the image features to the keys and values of all query layers at once.

The image features do not change from layer to layer, so one wide matrix product (1024 -> 4096 in the
official model) replaces two narrow ones a layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.projector import KeyValueProjection, QueryProjector
from pargo_export.rewrite.merge_qkv import merge_linears
from pargo_export.rewrite.rewrite import Rewrite, cross_attentions

__all__ = ["MERGE_CROSS_KV", "AllLayersKeyValue", "TakeKeyValue"]


class AllLayersKeyValue(nn.Module):
    """Keys and values of every cross-attention, from one projection."""

    def __init__(self, projections: list[KeyValueProjection]) -> None:
        super().__init__()
        self.num_parts = 2 * len(projections)
        self.merged = merge_linears([linear for kv in projections for linear in (kv.key, kv.value)])

    def forward(self, image_features: Tensor) -> tuple[Tensor, ...]:
        """`[B, N, encoder_width]` -> key, value of the first layer, key, value of the next, ...; each `[B, N, C]`."""
        return self.merged(image_features).chunk(self.num_parts, dim=-1)


class TakeKeyValue(nn.Module):
    """Pick one layer's key and value."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, context: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return key and value, each `[B, N, C]`."""
        return context[2 * self.index], context[2 * self.index + 1]


def _apply(model: VisualFrontEnd) -> int:
    crosses = cross_attentions(model)
    projections = [cross.key_value for cross in crosses if isinstance(cross.key_value, KeyValueProjection)]
    if not isinstance(model.projector, QueryProjector) or not projections:
        return 0
    model.projector.context = AllLayersKeyValue(projections)
    for index, cross in enumerate(crosses):
        cross.key_value = TakeKeyValue(index)
    return len(crosses)


MERGE_CROSS_KV = Rewrite(
    name="merge-cross-kv",
    summary="one projection of the image features to the keys and values of all query layers",
    why_exact="the rows of a matrix product are independent, and all layers read the same features",
    apply=_apply,
    acts_on="projector",
)
