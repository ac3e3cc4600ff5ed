"""What the tests of the stage `bench` share."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pargo_export.bench.options import BenchOptions
from pargo_export.bench.process import SubjectSpec
from pargo_export.bench.subjects import plan_subjects
from pargo_export.bundle import Bundle


@pytest.fixture
def make_spec(exported_bundle, monkeypatch):
    """Return a function that describes `fp32 on onnxruntime`, with a fault and under another name if asked."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    options = BenchOptions(backends=("onnxruntime",), variants=("fp32",), threads=1)
    (spec,) = plan_subjects(Bundle.open(exported_bundle), options).subjects

    def make(name: str = "", fault: str = "", **arguments) -> SubjectSpec:
        name = name or spec.facts.name
        changed = dataclasses.replace(
            spec,
            facts=spec.facts.model_copy(update={"name": name}),
            arguments=spec.arguments | {"name": name} | arguments,
        )
        if not fault:
            return changed
        return dataclasses.replace(
            changed,
            factory="faulty_subjects:open_faulty",
            arguments=changed.arguments | {"fault": fault},
        )

    return make
