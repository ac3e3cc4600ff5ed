"""Every graph is exported once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graph.exports import GOLDEN_EXPORTS, Exported, golden_id, source_model
from made_once import made_once

from pargo_export.bundle import sha256_bytes
from pargo_export.graph.export import export_onnx


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., Exported]:
    """Return a function that exports a model (see `source_model`) with some options, once for all tests."""
    made: dict[tuple[Any, ...], Exported] = {}

    def export(source: str, **options: Any) -> Exported:
        key = (source, *sorted(options.items()))
        if key not in made:
            name = f"export-{sha256_bytes(repr(key).encode())[:16]}"

            def make(directory: Path) -> None:
                result = export_onnx(source_model(source), directory / "bundle", **options)
                (directory / "result.pickle").write_bytes(pickle.dumps(result))

            directory = made_once(tmp_path_factory, name, make)
            result = pickle.loads((directory / "result.pickle").read_bytes())  # our own
            made[key] = Exported(result, directory / "bundle" / result.variant.graph)
        return made[key]

    return export


@pytest.fixture(params=GOLDEN_EXPORTS, ids=golden_id)
def golden_export(
    request: pytest.FixtureRequest, exported: Callable[..., Exported]
) -> tuple[Exported, str, str, str]:
    """Return an exported golden case, with its name, precision and form."""
    name, precision, attention = request.param
    return exported(name, precision=precision, attention=attention), name, precision, attention
