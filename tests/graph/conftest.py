"""Every graph is exported once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graph.exports import GOLDEN_EXPORTS, Exported, golden_id, source_model

from pargo_export.graph.export import export_onnx


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., Exported]:
    """Return a function that exports a model (see `source_model`) with some options, once for all tests."""
    made: dict[tuple[Any, ...], Exported] = {}

    def export(source: str, **options: Any) -> Exported:
        key = (source, *sorted(options.items()))
        if key not in made:
            bundle = tmp_path_factory.mktemp("export") / "bundle"
            result = export_onnx(source_model(source), bundle, **options)
            made[key] = Exported(result, bundle / result.variant.graph)
        return made[key]

    return export


@pytest.fixture(params=GOLDEN_EXPORTS, ids=golden_id)
def golden_export(
    request: pytest.FixtureRequest, exported: Callable[..., Exported]
) -> tuple[Exported, str, str, str]:
    """Return an exported golden case, with its name, precision and form."""
    name, precision, attention = request.param
    return exported(name, precision=precision, attention=attention), name, precision, attention
