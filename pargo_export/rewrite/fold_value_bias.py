"""Fold the value bias of the query layers into the output projection.

    O (sum_j a_j (v_j + b)) + c  =  O (sum_j a_j v_j) + (O b + c)      because sum_j a_j = 1

Not possible in the tower, where a LayerNorm stands between attention and output projection.
"""

from __future__ import annotations

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.rewrite import Rewrite, separate_projections, set_parameter

__all__ = ["FOLD_VALUE_BIAS"]


def _apply(model: VisualFrontEnd) -> int:
    count = 0
    for _, value, output in separate_projections(model):
        if value.bias is None:
            continue
        set_parameter(output, "bias", output.bias + output.weight @ value.bias)
        set_parameter(value, "bias", None)
        count += 1
    return count


FOLD_VALUE_BIAS = Rewrite(
    name="fold-value-bias",
    summary="fold the value bias of the query layers into the output projection",
    why_exact="attention weights sum to one",
    apply=_apply,
    acts_on="projector",
)
