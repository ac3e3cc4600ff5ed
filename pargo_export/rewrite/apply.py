"""Run rewrites on a copy of the reference."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.attention_forms import AttentionForm, set_attention_form
from pargo_export.rewrite.rewrite import Rewrite, RewriteResult, set_parameter

__all__ = ["deploy_module"]


@torch.no_grad()
def deploy_module(
    model: VisualFrontEnd,
    rewrites: Sequence[Rewrite],
    attention: AttentionForm,
    dtype: torch.dtype | None = None,
) -> tuple[VisualFrontEnd, list[RewriteResult]]:
    """Return a rewritten copy of `model` and how often each rewrite applied.

    The copy shares every weight that no rewrite touches, and rewrites never change a tensor in place:
    `model` stays as it was, and memory grows only by what was rewritten or cast to `dtype`.

    Args:
        model: The reference.
        rewrites: What to run, in order (`registry.select_rewrites`).
        attention: How the attention is written.
        dtype: Of weights and activations, `None` to keep the model's; the rewrites run before the cast.
    """
    shared = [*model.parameters(), *model.buffers()]
    deploy = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    results = [RewriteResult(rewrite.name, rewrite.apply(deploy)) for rewrite in rewrites]
    set_attention_form(deploy, attention)
    if dtype is not None:
        _cast(deploy, dtype)
    return deploy.eval(), results


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Like `Module.to(dtype)`, which would also cast the weights that `model` shares with the reference."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_floating_point() and parameter.dtype != dtype:
                set_parameter(module, name, parameter.to(dtype))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point() and buffer.dtype != dtype:
                module.register_buffer(name, buffer.to(dtype), persistent=False)
