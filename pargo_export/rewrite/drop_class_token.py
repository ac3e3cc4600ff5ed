"""Drop the class token inside the last tower block, as early as exactness allows.

Its key and value are still read by the patches there; its own query, output projection and feed-forward
serve nothing, because the projector only takes patch tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from pargo_export.model.attention import merge_heads, split_heads
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import TowerAttention, TowerBlock
from pargo_export.model.vit_tower import VitAttention, VitBlock
from pargo_export.rewrite.rewrite import Rewrite

__all__ = ["DROP_CLASS_TOKEN", "PatchesOnlyBlock"]


class PatchesOnlyBlock(nn.Module):
    """The last block, for the patch tokens alone."""

    def __init__(self, block: TowerBlock | VitBlock) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = (
            block.norm1,
            block.attention,
            block.norm2,
            block.mlp,
        )

    def _attend(self, attention: TowerAttention | VitAttention, tokens: Tensor) -> Tensor:
        query, key, value = (split_heads(part, attention.num_heads) for part in attention.qkv(tokens))
        if isinstance(attention, VitAttention):
            return attention.output(merge_heads(attention.core(query[:, :, 1:], key, value)))
        context = attention.core(attention.rope(query)[:, :, 1:], attention.rope(key), value)
        return attention.output(attention.inner_norm(merge_heads(context)))

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, 1+N, C]` -> `[B, N, C]`."""
        patches = tokens[:, 1:] + self._attend(self.attention, self.norm1(tokens))
        return patches + self.mlp(self.norm2(patches))


def _apply(model: VisualFrontEnd) -> int:
    last = model.tower.blocks[-1]
    if not model.config.vision.has_class_token or not isinstance(last, (TowerBlock, VitBlock)):
        return 0
    model.tower.blocks[-1] = PatchesOnlyBlock(last)
    model.select_patches = nn.Identity()
    return 1


DROP_CLASS_TOKEN = Rewrite(
    name="drop-class-token",
    summary="drop the class token inside the last tower block",
    why_exact="after its key and value have been read nothing depends on it",
    apply=_apply,
    acts_on="encoder",
)
