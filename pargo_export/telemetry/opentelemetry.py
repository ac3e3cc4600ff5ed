"""OpenTelemetry metrics and spans of runtimes, by `opentelemetry-api` alone. Extra: `telemetry`.

| instrument | unit | attributes | what |
|---|---|---|---|
| `pargo_export.requests` | `{request}` | `pargo_export.outcome` | calls of `encode` and submissions |
| `pargo_export.images` | `{image}` | `pargo_export.outcome` | their images |
| `pargo_export.request.duration` | `s` | | histogram: queue to tokens, of what was completed |
| `pargo_export.request.stage.duration` | `s` | `pargo_export.stage` | histogram: `queue`, `preprocess`, `run` |
| `pargo_export.pending_requests` | `{request}` | | submissions that wait to be computed |
| `pargo_export.model.info` | `1` | what runs | 1: backend, variant, precision, hash of the bundle, ... |

All have the attribute `pargo_export.runtime`, the name that was given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from pargo_export._version import __version__
from pargo_export.optional import require
from pargo_export.runtime import Runtime
from pargo_export.runtime.events import RunEvent
from pargo_export.telemetry.measures import LATENCY_BUCKETS_S, OUTCOMES, outcome_of, stages_of
from pargo_export.telemetry.watched import Watched

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Tracer

__all__ = ["instrument"]

_SCOPE = "pargo_export"
_lock = threading.Lock()
_instruments: dict[MeterProvider, _Instruments] = {}  # a callback can be registered once and never removed


def instrument(
    runtime: Runtime,
    *,
    name: str = "default",
    meter_provider: MeterProvider | None = None,
    tracer: Tracer | None = None,
) -> Callable[[], None]:
    """Record what a runtime does by the instruments of a meter provider, and as spans if a tracer is handed.

    The application sets up the SDK and its exporters; without one, recording does nothing.

    A span is written when the request has ended, with the times that it took. It is a child of the span that is
    current in the thread that computed: for `encode` the caller's; a submission is computed in a thread of the runtime,
    and its span has no parent. `pargo_export.*_duration` are the seconds of its stages.

    Args:
        runtime: What to watch.
        name: Value of the attribute `pargo_export.runtime`: one for each runtime of the process.
        meter_provider: By default the global one.
        tracer: Where spans go; none are made without it.

    Returns:
        What ends it; again does nothing.

    Raises:
        ConfigError: Another runtime has that name.
        MissingDependencyError: `opentelemetry-api` is not installed.
    """
    metrics = require("opentelemetry.metrics", extra="telemetry", purpose="record OpenTelemetry metrics")
    provider: MeterProvider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        if provider not in _instruments:
            _instruments[provider] = _Instruments(provider)
        instruments = _instruments[provider]

    def listen(event: RunEvent) -> None:
        instruments.record(name, event)
        if tracer is not None:
            _write_span(tracer, name, event)

    forget = instruments.add(name, runtime)
    unsubscribe = runtime.subscribe(listen)

    def stop() -> None:
        forget()
        unsubscribe()

    return stop


class _Instruments:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        self._watched = Watched()
        meter = provider.get_meter(_SCOPE, __version__)
        self._requests = meter.create_counter(
            "pargo_export.requests", "{request}", "Calls of encode and submissions, by how they ended."
        )
        self._images = meter.create_counter(
            "pargo_export.images", "{image}", "Images of these calls and submissions."
        )
        self._duration = meter.create_histogram(
            "pargo_export.request.duration",
            "s",
            "From the call to the visual tokens, of completed requests.",
            explicit_bucket_boundaries_advisory=LATENCY_BUCKETS_S,
        )
        self._stages = meter.create_histogram(
            "pargo_export.request.stage.duration",
            "s",
            "Time of the stages that a request went through.",
            explicit_bucket_boundaries_advisory=LATENCY_BUCKETS_S,
        )
        meter.create_observable_up_down_counter(
            "pargo_export.pending_requests",
            [self._observe_pending],
            "{request}",
            "Submissions that wait to be computed.",
        )
        meter.create_observable_gauge(
            "pargo_export.model.info", [self._observe_models], "1", "What each runtime runs."
        )

    def add(self, name: str, runtime: Runtime) -> Callable[[], None]:
        forget = self._watched.add(name, runtime)
        for outcome in OUTCOMES:
            ended = {"pargo_export.runtime": name, "pargo_export.outcome": outcome}
            self._requests.add(0, ended)
            self._images.add(0, ended)
        return forget

    def record(self, name: str, event: RunEvent) -> None:
        runtime = {"pargo_export.runtime": name}
        ended = {**runtime, "pargo_export.outcome": outcome_of(event)}
        self._requests.add(event.num_requests, ended)
        self._images.add(event.num_images, ended)
        stages = dict(stages_of(event))
        if event.kind == "run":
            self._duration.record(sum(stages.values()), runtime)
        for stage, seconds in stages.items():
            self._stages.record(seconds, {**runtime, "pargo_export.stage": stage})

    def _observe_pending(self, _: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        return [
            Observation(watched.runtime.num_pending, {"pargo_export.runtime": watched.name})
            for watched in self._watched.items()
        ]

    def _observe_models(self, _: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        return [
            Observation(1, {"pargo_export.runtime": watched.name, **_model_attributes(watched.model)})
            for watched in self._watched.items()
        ]


def _model_attributes(model: Mapping[str, str]) -> dict[str, str]:
    return {f"pargo_export.model.{key}": value for key, value in model.items()}


def _write_span(tracer: Tracer, name: str, event: RunEvent) -> None:
    from opentelemetry.trace import Status, StatusCode

    end_ns = time.time_ns()
    stages = dict(stages_of(event))
    span = tracer.start_span(
        "pargo_export.request",
        start_time=end_ns - round(sum(stages.values()) * 1e9),
        attributes={
            "pargo_export.runtime": name,
            "pargo_export.outcome": outcome_of(event),
            "pargo_export.num_images": event.num_images,
            "pargo_export.num_requests": event.num_requests,
            **{f"pargo_export.{stage}_duration": seconds for stage, seconds in stages.items()},
        },
    )
    if event.kind != "run":
        span.set_attribute("error.type", event.error.partition(":")[0])
        span.set_status(Status(StatusCode.ERROR, event.error))
    span.end(end_ns)
