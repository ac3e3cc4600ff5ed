"""Folding the class token into the position table."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import check_rewrite, deploy, exact_case

from pargo_export.rewrite.fold_class_token import FOLD_CLASS_TOKEN


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """One table replaces token and positions."""
    check_rewrite(FOLD_CLASS_TOKEN, name, alone=1)


@pytest.mark.parametrize("name", CASES)
def test_embedding_is_bitwise_the_same(name):
    """Nothing is rounded: the tower's first tokens are equal bit by bit, for any batch."""
    model = exact_case(name).model
    embedding = deploy(model, FOLD_CLASS_TOKEN).tower.embedding
    patches = torch.randn(
        3, *model.tower.embedding.position[0, 1:].shape, dtype=torch.float64, generator=torch.Generator()
    )
    assert torch.equal(embedding(patches), model.tower.embedding(patches))


def test_class_token_is_no_weight_any_more():
    """The embedding is one table of N + 1 rows."""
    model = exact_case("pargo_w2").model
    embedding = deploy(model, FOLD_CLASS_TOKEN).tower.embedding
    assert [name for name, _ in embedding.named_parameters()] == ["table"]
    reference = model.tower.embedding
    assert torch.equal(embedding.table[:, 0], reference.position[:, 0] + reference.class_token[:, 0])
    assert torch.equal(embedding.table[:, 1:], reference.position[:, 1:])
