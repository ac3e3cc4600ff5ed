"""What a rewrite is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pargo_export.model.frontend import VisualFrontEnd

__all__ = ["Rewrite", "RewriteResult", "linear_from", "projector_attentions", "set_parameter"]


@dataclass(frozen=True)
class Rewrite:
    """One exact transformation of the deploy module, in place.

    Attributes:
        name: Stable name for the command line and the manifest.
        summary: What it does, in one line.
        why_exact: Why the function computed stays the same.
        apply: Changes the module and returns the number of places it changed.
        crosses_components: Moves work between tower and projector, so that neither can be exported alone.
    """

    name: str
    summary: str
    why_exact: str
    apply: Callable[[VisualFrontEnd], int]
    crosses_components: bool = False


@dataclass(frozen=True)
class RewriteResult:
    """How often a rewrite applied.

    Attributes:
        name: Of the rewrite.
        count: Places changed; 0 means that the model has nothing it applies to.
    """

    name: str
    count: int


def linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a `Linear` with the given parameters (`[out, in]`, `[out]`), without initialising others."""
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def set_parameter(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Replace a parameter of `module` by a new tensor, or by `None`; the old tensor is left untouched."""
    setattr(module, name, None if value is None else nn.Parameter(value.detach(), requires_grad=False))


def projector_attentions(model: VisualFrontEnd) -> list[tuple[nn.Linear, nn.Linear, nn.Linear]]:
    """Return (key, value, output) of every attention of the query layers whose projections are separate."""
    found = []
    for layer in getattr(model.projector, "layers", ()):
        for attention, projections in (
            (layer.self_attention, getattr(layer.self_attention, "qkv", None)),
            (layer.cross_attention, getattr(layer.cross_attention, "key_value", None)),
        ):
            if isinstance(getattr(projections, "key", None), nn.Linear):
                found.append((projections.key, projections.value, attention.output))
    return found


def zeros_like_rows(weight: Tensor) -> Tensor:
    """A zero bias for the rows of `weight`."""
    return torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
