"""The rewrites in the order in which they run, and which target uses which."""

from __future__ import annotations

from typing import Literal, get_args

from pargo_export.errors import ConfigError
from pargo_export.rewrite.drop_class_token import DROP_CLASS_TOKEN
from pargo_export.rewrite.drop_key_bias import DROP_KEY_BIAS
from pargo_export.rewrite.drop_unused_weights import DROP_UNUSED_WEIGHTS
from pargo_export.rewrite.fold_class_token import FOLD_CLASS_TOKEN
from pargo_export.rewrite.fold_output_norm import FOLD_OUTPUT_NORM
from pargo_export.rewrite.fold_softmax_scale import FOLD_SOFTMAX_SCALE
from pargo_export.rewrite.fold_value_bias import FOLD_VALUE_BIAS
from pargo_export.rewrite.half_rotation_rope import HALF_ROTATION_ROPE
from pargo_export.rewrite.merge_cross_kv import MERGE_CROSS_KV
from pargo_export.rewrite.merge_qkv import MERGE_QKV
from pargo_export.rewrite.merge_swiglu import MERGE_SWIGLU
from pargo_export.rewrite.pad_swiglu import PAD_SWIGLU
from pargo_export.rewrite.precompute_first_layer import PRECOMPUTE_FIRST_LAYER
from pargo_export.rewrite.rewrite import Rewrite

__all__ = ["REWRITES", "TARGETS", "TARGET_REWRITES", "Target", "select_rewrites"]

Target = Literal["cpu", "cuda", "orin", "thor", "rtx"]
TARGETS: tuple[Target, ...] = get_args(Target)

# Order matters: rewrites that edit separate projections come before those that merge them.
REWRITES: dict[str, Rewrite] = {
    rewrite.name: rewrite
    for rewrite in (
        DROP_UNUSED_WEIGHTS,
        FOLD_CLASS_TOKEN,
        HALF_ROTATION_ROPE,
        FOLD_SOFTMAX_SCALE,
        FOLD_OUTPUT_NORM,
        DROP_KEY_BIAS,
        FOLD_VALUE_BIAS,
        PRECOMPUTE_FIRST_LAYER,
        PAD_SWIGLU,
        MERGE_QKV,
        MERGE_CROSS_KV,
        MERGE_SWIGLU,
        DROP_CLASS_TOKEN,
    )
}

_EVERYWHERE = frozenset(REWRITES) - {PAD_SWIGLU.name}
# Alignment is for tensor cores; on a CPU padding only adds work (docs/rewrites.md).
_TENSOR_CORES = _EVERYWHERE | {PAD_SWIGLU.name}
TARGET_REWRITES: dict[Target, frozenset[str]] = {
    "cpu": _EVERYWHERE,
    "cuda": _TENSOR_CORES,
    "orin": _TENSOR_CORES,
    "thor": _TENSOR_CORES,
    "rtx": _TENSOR_CORES,
}


def select_rewrites(
    target: Target,
    *,
    only: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    component: Literal["all", "encoder", "projector"] = "all",
) -> list[Rewrite]:
    """Return the rewrites to run, in order.

    Args:
        target: Whose list to start from.
        only: Run these instead of the target's list.
        without: Leave these out.
        component: What is exported; rewrites that do nothing for it are left out.

    Raises:
        ConfigError: A name is unknown.
    """
    unknown = sorted({*(only or ()), *without} - set(REWRITES))
    if unknown:
        raise ConfigError(f"unknown rewrite {', '.join(unknown)}; known: {', '.join(REWRITES)}")
    wanted = (TARGET_REWRITES[target] if only is None else set(only)) - set(without)
    return [
        rewrite
        for name, rewrite in REWRITES.items()
        if name in wanted and (component == "all" or rewrite.acts_on in ("both", component))
    ]
