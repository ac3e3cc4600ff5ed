"""OpenTelemetry metrics and spans, by the real SDK, read in memory."""

from __future__ import annotations

import sys

import pytest

from pargo_export.bundle import sha256_bytes
from pargo_export.errors import ConfigError, ImageError, MissingDependencyError
from pargo_export.telemetry import opentelemetry
from pargo_export.telemetry.measures import LATENCY_BUCKETS_S

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

PREFIX = "pargo_export"


@pytest.fixture
def reader():
    """Return a reader that keeps metrics in memory."""
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    """Return a meter provider with that reader."""
    meter_provider = MeterProvider(metric_readers=[reader])
    yield meter_provider
    meter_provider.shutdown()


@pytest.fixture
def spans():
    """Return what keeps spans in memory, and a tracer."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter, provider.get_tracer("app")
    provider.shutdown()


def read(reader) -> dict:
    """Return the metrics by name."""
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == PREFIX
    return {metric.name: metric for metric in scope.metrics}


def values(metric, key=None) -> dict:
    """Return the values by name of the runtime and, if wanted, another attribute."""
    return {
        (
            point.attributes[f"{PREFIX}.runtime"],
            point.attributes[f"{PREFIX}.{key}"] if key else None,
        ): getattr(point, "value", getattr(point, "count", None))
        for point in metric.data.data_points
    }


def test_requests_are_counted_and_timed(
    runtime, play, provider, reader, requests_by_outcome, images_by_outcome
):
    """Requests and images by outcome, durations by stage, what waits, and what runs; with units."""
    stop = opentelemetry.instrument(runtime, name="camera", meter_provider=provider)
    before = values(read(reader)["pargo_export.requests"], "outcome")
    assert before == {("camera", name): 0 for name in requests_by_outcome}
    seen = []
    play(runtime, lambda: seen.append(values(read(reader)["pargo_export.pending_requests"])))
    assert seen == [{("camera", None): 1}]
    metrics = read(reader)
    assert {name: metric.unit for name, metric in metrics.items()} == {
        "pargo_export.requests": "{request}",
        "pargo_export.images": "{image}",
        "pargo_export.request.duration": "s",
        "pargo_export.request.stage.duration": "s",
        "pargo_export.pending_requests": "{request}",
        "pargo_export.model.info": "1",
    }
    assert all(metric.description for metric in metrics.values())
    assert values(metrics["pargo_export.pending_requests"]) == {("camera", None): 0}
    assert not metrics["pargo_export.pending_requests"].data.is_monotonic
    for kind, expected in (("requests", requests_by_outcome), ("images", images_by_outcome)):
        metric = metrics[f"pargo_export.{kind}"]
        assert metric.data.is_monotonic
        assert values(metric, "outcome") == {("camera", name): count for name, count in expected.items()}
    assert values(metrics["pargo_export.request.duration"]) == {("camera", None): 2}
    stages = metrics["pargo_export.request.stage.duration"]
    expected = {("camera", "queue"): 4, ("camera", "preprocess"): 3, ("camera", "run"): 2}
    assert values(stages, "stage") == expected
    for point in stages.data.data_points:
        assert tuple(point.explicit_bounds) == LATENCY_BUCKETS_S
        assert 0 < point.sum < 60
    (point,) = metrics["pargo_export.model.info"].data.data_points
    assert point.value == 1
    model = {name.rpartition(".")[2]: value for name, value in point.attributes.items()}
    assert (model["variant"], model["backend"], model["precision"]) == ("fp32", "onnxruntime", "float32")
    assert model["bundle_sha256"] == sha256_bytes(runtime.bundle.manifest.to_json())
    stop()


def test_runtimes_are_told_apart(exported_bundle, runtime, play, provider, reader):
    """Two runtimes of one provider have names; one that is in use is refused, and free again after the end."""
    from pargo_export.runtime import Runtime

    stop = opentelemetry.instrument(runtime, name="left", meter_provider=provider)
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as other:
        with pytest.raises(ConfigError, match="name: found 'left'"):
            opentelemetry.instrument(other, name="left", meter_provider=provider)
        opentelemetry.instrument(other, name="right", meter_provider=provider)
        play(runtime)
        metrics = read(reader)
        counts = values(metrics["pargo_export.requests"], "outcome")
        assert (counts["left", "completed"], counts["right", "completed"]) == (2, 0)
        assert set(values(metrics["pargo_export.pending_requests"])) == {("left", None), ("right", None)}
        stop()
        stop()
        play(runtime)
        metrics = read(reader)
        assert values(metrics["pargo_export.requests"], "outcome")["left", "completed"] == 2
        assert set(values(metrics["pargo_export.pending_requests"])) == {("right", None)}
        opentelemetry.instrument(runtime, name="left", meter_provider=provider)


def test_requests_are_spans(runtime, play, provider, spans, requests_by_outcome):
    """Each with its times; what was not computed, and what failed, has an error."""
    exporter, tracer = spans
    stop = opentelemetry.instrument(runtime, name="camera", meter_provider=provider, tracer=tracer)
    play(runtime)
    stop()
    found = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.attributes["pargo_export.outcome"], []).append(span)
    assert {name: len(items) for name, items in found.items()} == requests_by_outcome
    submitted = found["completed"][1]
    assert submitted.name == "pargo_export.request"
    assert submitted.status.status_code is StatusCode.UNSET
    stages = [
        submitted.attributes[f"pargo_export.{name}_duration"] for name in ("queue", "preprocess", "run")
    ]
    assert (submitted.end_time - submitted.start_time) / 1e9 == pytest.approx(sum(stages), abs=1e-6)
    assert submitted.attributes["pargo_export.num_images"] == 1
    for name, error in (
        ("failed", "ImageError"),
        ("expired", "DeadlineError"),
        ("replaced", "OverloadError"),
    ):
        (span,) = found[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == error
        assert span.status.description.startswith(f"{error}: ")


def test_the_span_of_a_call_is_a_child_of_its_caller(runtime, provider, spans):
    """`encode` computes in the thread of the caller; what was submitted has no parent."""
    exporter, tracer = spans
    stop = opentelemetry.instrument(runtime, meter_provider=provider, tracer=tracer)
    with tracer.start_as_current_span("frame") as frame:
        with pytest.raises(ImageError):
            runtime.encode(b"no picture")
        assert runtime.submit(b"no picture").exception(60) is not None
    stop()
    called, submitted = (
        span for span in exporter.get_finished_spans() if span.name == "pargo_export.request"
    )
    assert called.parent.span_id == frame.get_span_context().span_id
    assert frame.start_time <= called.start_time <= called.end_time <= frame.end_time
    assert submitted.parent is None


def test_nothing_is_needed_but_the_interface(runtime, play):
    """Without an SDK the global provider takes the numbers and does nothing."""
    stop = opentelemetry.instrument(runtime)
    play(runtime)
    stop()


def test_missing_package_is_named_with_its_extra(runtime, monkeypatch):
    """Where `opentelemetry-api` is not installed."""
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pargo-export\[telemetry\]'"):
        opentelemetry.instrument(runtime)
