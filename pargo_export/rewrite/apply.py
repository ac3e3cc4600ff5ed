"""Run rewrites on a copy of the reference."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.attention_forms import AttentionForm, set_attention_form
from pargo_export.rewrite.rewrite import Rewrite, RewriteResult

__all__ = ["deploy_module"]


@torch.no_grad()
def deploy_module(
    model: VisualFrontEnd, rewrites: Sequence[Rewrite], attention: AttentionForm
) -> tuple[VisualFrontEnd, list[RewriteResult]]:
    """Return a rewritten copy of `model` and how often each rewrite applied.

    The copy shares every weight that no rewrite touches, and rewrites never change a tensor in place:
    `model` stays as it was, and memory grows only by what was rewritten.
    """
    shared = [*model.parameters(), *model.buffers()]
    deploy = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    results = [RewriteResult(rewrite.name, rewrite.apply(deploy)) for rewrite in rewrites]
    set_attention_form(deploy, attention)
    return deploy.eval(), results
