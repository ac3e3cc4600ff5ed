"""Dropping weights that no visual token depends on."""

from __future__ import annotations

import pytest
from golden_cases import CASES, QUERY_CASES
from rewrite.exactness import check_rewrite, deploy, exact_case

from pargo_export.rewrite.drop_unused_weights import DROP_UNUSED_WEIGHTS


@pytest.mark.parametrize("name", CASES)
def test_rewrite_is_exact(name):
    """The final norm, the head and the surplus position rows are not read: three places, two without queries."""
    check_rewrite(DROP_UNUSED_WEIGHTS, name, alone=3 if name in QUERY_CASES else 2)


@pytest.mark.parametrize("name", CASES)
def test_unused_weights_are_gone(name):
    """No final norm and no head are left, and the tower keeps everything else."""
    model = exact_case(name).model
    deployed = deploy(model, DROP_UNUSED_WEIGHTS)
    dropped = set(model.state_dict()) - set(deployed.state_dict())
    assert dropped == {
        f"tower.{module}.{weight}" for module in ("final_norm", "head") for weight in ("weight", "bias")
    }


@pytest.mark.parametrize("name", QUERY_CASES)
def test_position_rows_are_those_of_the_queries(name):
    """The first Q rows stay, in memory of their own, so that the whole table can be freed."""
    model = exact_case(name).model
    table = deploy(model, DROP_UNUSED_WEIGHTS).projector.embedding.position
    used = model.config.projector.num_query_tokens
    assert (table == model.projector.embedding.position[:used]).all()
    assert table.shape[0] == used
    assert table.untyped_storage().nbytes() == table.numel() * table.element_size()
