"""Drop the key bias of the query layers.

softmax_j(q . (k_j + b))  =  softmax_j(q . k_j + q . b)  =  softmax_j(q . k_j)
"""

from __future__ import annotations

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.rewrite import Rewrite, separate_projections, set_parameter

__all__ = ["DROP_KEY_BIAS"]


def _apply(model: VisualFrontEnd) -> int:
    keys = [key for key, _, _ in separate_projections(model) if key.bias is not None]
    for key in keys:
        set_parameter(key, "bias", None)
    return len(keys)


DROP_KEY_BIAS = Rewrite(
    name="drop-key-bias",
    summary="drop the key bias of the query layers",
    why_exact="it adds the same number to all scores of a query, which softmax ignores",
    apply=_apply,
    acts_on="projector",
)
