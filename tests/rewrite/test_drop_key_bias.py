"""Dropping the key bias of the query layers."""

from __future__ import annotations

import pytest
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case

from pargo_export.rewrite.drop_key_bias import DROP_KEY_BIAS

# Self-attentions and cross-attentions.
COUNTS = {"pargo_w2": 4 + 4, "pargo_w4_freq2": 4 + 2, "pargo_small_variance": 2 + 2, "qformer": 4 + 2}


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """Every attention of the query layers is changed; `linear` and `mlp` have none."""
    check_rewrite(DROP_KEY_BIAS, name, alone=COUNTS.get(name, 0))


@pytest.mark.parametrize("name", QUERY_CASES)
def test_no_key_bias_is_left(name):
    """Key biases and nothing else are gone, in the query layers as in the tower, which never had one."""
    model = exact_case(name).model
    left = set(deploy(model, DROP_KEY_BIAS).state_dict())
    dropped = set(model.state_dict()) - left
    assert len(dropped) == COUNTS[name]
    assert all(key.endswith(".key.bias") for key in dropped)
    assert not any(key.endswith(".key.bias") for key in left)
