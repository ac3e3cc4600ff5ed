"""What a worker calls to load a subject: functions whose arguments JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping

from pargo_export.bench.baselines import open_baseline
from pargo_export.bench.runtime_subject import RuntimeSubject
from pargo_export.bench.subject import LoadedSubject
from pargo_export.runtime import Runtime

__all__ = ["open_library", "open_runtime"]

_MAX_PENDING = 64  # some gathered runs may wait under load, not one or two


def open_runtime(
    name: str,
    bundle: str,
    *,
    backend: str,
    variant: str,
    engine: str | None = None,
    threads: int | None = None,
    streams: int = 1,
    gather_ms: float = 0.0,
) -> RuntimeSubject:
    """Open a graph of a bundle.

    Args:
        name: Of the subject.
        bundle: Directory of the bundle.
        backend: Backend that runs it, and no other.
        variant: The graph.
        engine: TensorRT engine, on a backend that runs engines.
        threads: CPU threads of a run; `None`: every physical core.
        streams: Batches that a GPU computes at the same time.
        gather_ms: How long submitted requests wait for others to run with them.

    Raises:
        BackendError: The backend cannot run it.
        BundleError: There is no such bundle, variant or engine.
        IntegrityError: A file of the bundle is not the one that the manifest describes.
    """
    runtime = Runtime.open(
        bundle,
        backend=backend,
        variant=variant,
        engine=engine,
        threads=threads,
        streams=streams,
        gather_ms=gather_ms,
        max_pending=_MAX_PENDING,
    )
    return RuntimeSubject(runtime, name)


def open_library(
    kind: str,
    bundle: str,
    checkpoint: str,
    threads: int | None = None,
    exported: Mapping[str, str] | None = None,
) -> LoadedSubject:
    """Load a baseline that runs the checkpoint; see `open_baseline`."""
    return open_baseline(kind, bundle=bundle, checkpoint=checkpoint, threads=threads, exported=exported)
