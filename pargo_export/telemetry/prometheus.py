"""Prometheus metrics of runtimes, by `prometheus_client`. Extra: `telemetry`.

| metric | labels | what |
|---|---|---|
| `pargo_export_requests_total` | `runtime`, `outcome` | calls of `encode` and submissions |
| `pargo_export_images_total` | `runtime`, `outcome` | their images |
| `pargo_export_request_duration_seconds` | `runtime` | histogram: queue to tokens, of what was completed |
| `pargo_export_request_stage_duration_seconds` | `runtime`, `stage` | histogram: `queue`, `preprocess`, `run` |
| `pargo_export_pending_requests` | `runtime` | gauge: submissions that wait to be computed |
| `pargo_export_model_info` | `runtime`, and what runs | 1: backend, variant, precision, hash of the bundle, ... |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pargo_export.optional import require
from pargo_export.runtime import Runtime
from pargo_export.runtime.events import RunEvent
from pargo_export.telemetry.measures import LATENCY_BUCKETS_S, OUTCOMES, outcome_of, stages_of
from pargo_export.telemetry.watched import Watched

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["instrument"]

_lock = threading.Lock()
_families: dict[
    CollectorRegistry, _Families
] = {}  # a registry knows a metric once; it lives as long as the process


def instrument(
    runtime: Runtime,
    *,
    name: str = "default",
    registry: CollectorRegistry | None = None,
    buckets: Sequence[float] = LATENCY_BUCKETS_S,
) -> Callable[[], None]:
    """Count and time what a runtime does, in a registry.

    The application serves the registry: `prometheus_client.start_http_server(9464, addr="127.0.0.1")`, or what its web
    framework has. The multiprocess mode of `prometheus_client` is not supported.

    Args:
        runtime: What to watch.
        name: Value of the label `runtime`: one for each runtime of the process.
        registry: Where the metrics are; by default the one of the process.
        buckets: Upper bounds of the histograms, seconds; those of the first call for a registry are kept.

    Returns:
        What ends it; again does nothing. Call it before the runtime is closed for good: pending requests and model
        then vanish from the registry, the counts stay, so that the last ones are scraped too.

    Raises:
        ConfigError: Another runtime has that name.
        MissingDependencyError: `prometheus_client` is not installed.
    """
    client = require("prometheus_client", extra="telemetry", purpose="serve Prometheus metrics")
    target: CollectorRegistry = client.REGISTRY if registry is None else registry
    with _lock:
        if target not in _families:
            _families[target] = _Families(target, buckets)
        families = _families[target]
    forget = families.add(name, runtime)
    unsubscribe = runtime.subscribe(lambda event: families.observe(name, event))

    def stop() -> None:
        forget()
        unsubscribe()

    return stop


class _Families:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        from prometheus_client import Counter, Histogram

        self._watched = Watched()
        self._requests = Counter(
            "pargo_export_requests",
            "Calls of encode and submissions, by how they ended.",
            ["runtime", "outcome"],
            registry=registry,
        )
        self._images = Counter(
            "pargo_export_images",
            "Images of these calls and submissions.",
            ["runtime", "outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "pargo_export_request_duration_seconds",
            "From the call to the visual tokens, of completed requests.",
            ["runtime"],
            registry=registry,
            buckets=buckets,
        )
        self._stages = Histogram(
            "pargo_export_request_stage_duration_seconds",
            "Time of the stages that a request went through.",
            ["runtime", "stage"],
            registry=registry,
            buckets=buckets,
        )
        registry.register(_State(self._watched))

    def add(self, name: str, runtime: Runtime) -> Callable[[], None]:
        forget = self._watched.add(name, runtime)
        for outcome in OUTCOMES:
            self._requests.labels(name, outcome)
            self._images.labels(name, outcome)
        return forget

    def observe(self, name: str, event: RunEvent) -> None:
        outcome = outcome_of(event)
        self._requests.labels(name, outcome).inc(event.num_requests)
        self._images.labels(name, outcome).inc(event.num_images)
        stages = dict(stages_of(event))
        if event.kind == "run":
            self._duration.labels(name).observe(sum(stages.values()))
        for stage, seconds in stages.items():
            self._stages.labels(name, stage).observe(seconds)


class _State:
    """What is asked for when a scrape comes, rather than told."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        pending = GaugeMetricFamily(
            "pargo_export_pending_requests", "Submissions that wait to be computed.", labels=["runtime"]
        )
        model = InfoMetricFamily("pargo_export_model", "What each runtime runs.", labels=["runtime"])
        for watched in self._watched.items():
            pending.add_metric([watched.name], watched.runtime.num_pending)
            model.add_metric([watched.name], dict(watched.model))
        return [pending, model]
