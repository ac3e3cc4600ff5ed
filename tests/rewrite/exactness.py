"""What every rewrite is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from golden_cases import golden_case, golden_model
from tolerances import TOLERANCES
from torch import Tensor

from pargo_export.model.frontend import Intermediates, VisualFrontEnd
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.registry import REWRITES
from pargo_export.rewrite.rewrite import Rewrite

__all__ = [
    "ExactCase",
    "assert_same_function",
    "check_rewrite",
    "deploy",
    "earlier_than",
    "exact_case",
]


@dataclass(frozen=True)
class ExactCase:
    """A golden case in float64.

    Attributes:
        model: The reference; rewrites leave it as it is.
        images: Its stored input.
        expected: What the reference makes of it.
    """

    model: VisualFrontEnd
    images: Tensor
    expected: Intermediates


@lru_cache
def exact_case(name: str) -> ExactCase:
    """Return a golden case in float64."""
    model, images = golden_model(name).double(), golden_case(name).images.double()
    return ExactCase(model, images, model.encode_images(images, return_intermediates=True))


def deploy(model: VisualFrontEnd, *rewrites: Rewrite, attention: str = "dense") -> VisualFrontEnd:
    """Return a copy of `model` with `rewrites` applied, in the dtype of `model`."""
    dtype = next(model.parameters()).dtype
    return deploy_module(model, rewrites, attention, dtype)[0]


def earlier_than(rewrite: Rewrite) -> list[Rewrite]:
    """Return the rewrites that run before `rewrite`."""
    names = list(REWRITES)
    return [REWRITES[name] for name in names[: names.index(rewrite.name)]]


def assert_same_function(
    found: Intermediates, expected: Intermediates, tolerance: str = "rewrite-float64"
) -> None:
    """Compare the state after every query layer and the visual tokens."""
    pairs = [("visual_tokens", found.visual_tokens, expected.visual_tokens)]
    if (
        len(expected.layers) > 1
    ):  # the groups of `linear` and `mlp` are the image features, which may be folded
        states = zip(found.layers, expected.layers, strict=True)
        pairs += [(f"query_layer_{layer}", *both) for layer, both in enumerate(states)]
    for stage, left, right in pairs:
        if left.shape[0] != right.shape[0]:
            left = left.expand_as(right)  # noqa: PLW2901 (a constant state has batch 1)
        assert left.shape == right.shape, stage
        error = (left - right).abs().max().item()
        assert error <= TOLERANCES[tolerance].value, f"{stage}: {error:.3g}"


def _snapshot(model: VisualFrontEnd) -> dict[str, tuple[int, int, Tensor]]:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        name: (id(tensor), tensor.data_ptr(), tensor.detach().clone()) for name, tensor in tensors.items()
    }


def _apply(case: ExactCase, rewrites: Sequence[Rewrite], tested: Rewrite) -> int:
    """Apply `rewrites`, hold the result against the reference, and return how often `tested` applied."""
    deployed, results = deploy_module(case.model, rewrites, "dense", torch.float64)
    found = deployed.encode_images(case.images, return_intermediates=True)
    assert_same_function(found, case.expected)
    assert tested.apply(deployed) == 0, "a second time there is nothing left to change"
    again = deployed.encode_images(case.images)
    assert torch.equal(again, found.visual_tokens), "a second time nothing changes"
    return {result.name: result.count for result in results}[tested.name]


def check_rewrite(rewrite: Rewrite, name: str, *, alone: int, on_top: int | None = None) -> None:
    """Hold a rewrite against the reference in float64, by itself and after all that run before it.

    Args:
        rewrite: The rewrite.
        name: Golden case.
        alone: How many places it changes by itself.
        on_top: How many after the earlier ones; as many as alone if left out.
    """
    case = exact_case(name)
    before = _snapshot(case.model)
    assert _apply(case, [rewrite], rewrite) == alone
    if rewrite.name in REWRITES:
        expected = alone if on_top is None else on_top
        assert _apply(case, [*earlier_than(rewrite), rewrite], rewrite) == expected
    after = _snapshot(case.model)
    assert before.keys() == after.keys()
    for tensor, (identity, address, content) in before.items():
        assert after[tensor][:2] == (identity, address), f"{tensor} was replaced in the reference"
        assert torch.equal(after[tensor][2], content), f"{tensor} was written to in the reference"
