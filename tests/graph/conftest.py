"""Every graph is exported once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from graph.exports import GOLDEN_EXPORTS, Exported, golden_id, golden_options
from shared_exports import export_once


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Return a function that exports a model (see `source_model`) with some options, once for all tests."""
    return partial(export_once, tmp_path_factory)


@pytest.fixture(params=GOLDEN_EXPORTS, ids=golden_id)
def golden_export(
    request: pytest.FixtureRequest, exported: Callable[..., Exported]
) -> tuple[Exported, str, str, str]:
    """Return an exported golden case, with its name, precision and form."""
    name, precision, attention = request.param
    return exported(name, **golden_options(precision, attention)), name, precision, attention
