"""Folding the affine part of `ln_vision` into its readers."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case
from tolerances import TOLERANCES
from torch import nn

from pargo_export.rewrite.fold_output_norm import FOLD_OUTPUT_NORM

# Key and value of every cross-attention, or the first projection of `linear` and `mlp`.
COUNTS = {
    "pargo_w2": 8,
    "pargo_w4_freq2": 4,
    "pargo_small_variance": 4,
    "qformer": 4,
    "linear": 1,
    "mlp": 1,
}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every projection that reads the image features is changed."""
    check_rewrite(FOLD_OUTPUT_NORM, name, alone=COUNTS[name])


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_only_normalises(name):
    """`ln_vision` has no weights any more and keeps its epsilon; the reference's gain and offset restore the features."""
    case = exact_case(name)
    deployed = deploy(case.model, FOLD_OUTPUT_NORM)
    assert isinstance(deployed.output_norm, nn.LayerNorm)
    assert not list(deployed.output_norm.parameters())
    assert deployed.output_norm.eps == case.model.output_norm.eps
    normalised = deployed.image_features(case.images)
    gain, offset = case.model.output_norm.weight, case.model.output_norm.bias
    error = (normalised * gain + offset - case.expected.image_features).abs().max().item()
    assert error <= TOLERANCES["rewrite-float64"].value
    assert not torch.equal(normalised, case.expected.image_features)


def test_it_binds_tower_and_projector_together():
    """Neither can be exported alone after it."""
    assert FOLD_OUTPUT_NORM.acts_on == "whole"
