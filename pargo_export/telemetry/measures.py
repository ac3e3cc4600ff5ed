"""What all ways of telling have in common: which numbers, of what, in which buckets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from pargo_export.runtime import Runtime, describe_provenance
from pargo_export.runtime.events import EventKind, RunEvent

__all__ = ["LATENCY_BUCKETS_S", "OUTCOMES", "describe_model", "outcome_of", "stages_of"]

# From a GPU of a data centre (2 ms an image) to the full-size model on a few cores (seconds); fine enough between
# for the periods of cameras, and for a deadline to lie on a boundary: 33 ms are looked up between 30 and 50.
LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 2.0, 5.0, 10.0),
)
# A series that begins with its first failure has no rate to alert on: each is there, with 0, from the start.
OUTCOMES = tuple("completed" if kind == "run" else kind for kind in get_args(EventKind))
_MODEL = ("backend", "bundle_sha256", "component", "engine", "pargo_export_version", "precision", "variant")


def describe_model(runtime: Runtime) -> dict[str, str]:
    """Return what a runtime runs: backend, variant, engine (empty without one), hash of the bundle's manifest, ..."""
    facts = {"engine": "", **describe_provenance(runtime, ())}
    return {name: facts[name] for name in _MODEL}


def outcome_of(event: RunEvent) -> str:
    """Return how it ended: `completed`, `failed`, `expired`, `refused` or `replaced`."""
    return "completed" if event.kind == "run" else event.kind


def stages_of(event: RunEvent) -> Iterator[tuple[str, float]]:
    """Yield the stages that took place, with their seconds: a call of `encode` waits in no queue."""
    for name, seconds in (
        ("queue", event.queue_s),
        ("preprocess", event.preprocess_s),
        ("run", event.run_s),
    ):
        if seconds > 0:
            yield name, seconds
