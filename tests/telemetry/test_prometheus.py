"""Prometheus metrics, in a real registry and over a real scrape."""

from __future__ import annotations

import sys
import urllib.request

import pytest

from pargo_export.bundle import sha256_bytes
from pargo_export.errors import ConfigError, MissingDependencyError
from pargo_export.telemetry import prometheus
from pargo_export.telemetry.measures import LATENCY_BUCKETS_S

prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402


@pytest.fixture
def registry():
    """Return an empty registry."""
    return prometheus_client.CollectorRegistry()


def scrape(registry) -> dict[str, dict[tuple[str, ...], float]]:
    """Render a registry to text, and return its samples by name and labels."""
    return parse(prometheus_client.generate_latest(registry).decode())


def parse(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of the text format by name and values of their labels, that of `runtime` first."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            key = (labels.pop("runtime", ""), *labels.values())
            samples.setdefault(sample.name, {})[key] = sample.value
    return samples


def test_requests_are_counted_and_timed(runtime, play, registry, requests_by_outcome, images_by_outcome):
    """Requests and images by outcome, durations by stage, what waits, and what runs."""
    stop = prometheus.instrument(runtime, name="camera", registry=registry)
    before = scrape(registry)
    assert before["pargo_export_requests_total"] == {("camera", name): 0 for name in requests_by_outcome}
    seen = []
    play(runtime, lambda: seen.append(scrape(registry)))
    assert seen[0]["pargo_export_pending_requests"] == {("camera",): 1}
    after = scrape(registry)
    assert after["pargo_export_pending_requests"] == {("camera",): 0}
    for kind, expected in (("requests", requests_by_outcome), ("images", images_by_outcome)):
        found = after[f"pargo_export_{kind}_total"]
        assert found == {("camera", name): count for name, count in expected.items()}
    assert after["pargo_export_request_duration_seconds_count"] == {("camera",): 2}
    # `encode` waits in no queue, two were not computed; the picture that failed was decoded as far as it went.
    assert after["pargo_export_request_stage_duration_seconds_count"] == {
        ("camera", "queue"): 4,
        ("camera", "preprocess"): 3,
        ("camera", "run"): 2,
    }
    stages = after["pargo_export_request_stage_duration_seconds_sum"]
    total = after["pargo_export_request_duration_seconds_sum"]["camera",]
    assert stages["camera", "run"] < total < sum(stages.values())
    assert stages["camera", "queue"] > 0.02  # that of the request that expired
    stop()


def test_what_runs_is_told(runtime, registry):
    """Variant, backend, precision and the hash of the manifest, as labels of one sample."""
    prometheus.instrument(runtime, registry=registry)
    text = prometheus_client.generate_latest(registry).decode()
    samples = [item for family in text_string_to_metric_families(text) for item in family.samples]
    (sample,) = [item for item in samples if item.name == "pargo_export_model_info"]
    assert sample.value == 1
    labels = sample.labels
    assert (labels["runtime"], labels["variant"], labels["backend"]) == ("default", "fp32", "onnxruntime")
    assert (labels["precision"], labels["component"], labels["engine"]) == ("float32", "all", "")
    assert labels["bundle_sha256"] == sha256_bytes(runtime.bundle.manifest.to_json())


@pytest.mark.parametrize("buckets", [None, (0.25, 1.0)])
def test_buckets_are_seconds_and_may_be_chosen(runtime, play, registry, buckets):
    """The default ones reach from half a millisecond to ten seconds."""
    prometheus.instrument(runtime, registry=registry, **({} if buckets is None else {"buckets": buckets}))
    play(runtime)
    samples = scrape(registry)["pargo_export_request_duration_seconds_bucket"]
    bounds = [float(labels[-1]) for labels in samples]
    assert bounds == [*(buckets or LATENCY_BUCKETS_S), float("inf")]
    assert bounds == sorted(bounds)
    assert list(samples.values()) == sorted(samples.values())


def test_runtimes_are_told_apart(exported_bundle, runtime, play, registry):
    """Two runtimes of one registry have names; a name that is in use is refused, and free again after the end."""
    from pargo_export.runtime import Runtime

    stop = prometheus.instrument(runtime, name="left", registry=registry)
    with Runtime.open(exported_bundle, variant="fp32", threads=1) as other:
        with pytest.raises(ConfigError, match=r"name: found 'left', .* \(in use: 'left'\)"):
            prometheus.instrument(other, name="left", registry=registry)
        prometheus.instrument(other, name="right", registry=registry)
        play(runtime)
        requests = scrape(registry)["pargo_export_requests_total"]
        assert (requests["left", "completed"], requests["right", "completed"]) == (2, 0)
        stop()
        stop()
        samples = scrape(registry)
        assert set(samples["pargo_export_pending_requests"]) == {("right",)}
        assert [labels[0] for labels in samples["pargo_export_model_info"]] == ["right"]
        play(runtime)
        assert scrape(registry)["pargo_export_requests_total"]["left", "completed"] == 2
        prometheus.instrument(runtime, name="left", registry=registry)
        stop()  # of the first time: it does not end the second
        play(runtime)
        samples = scrape(registry)
        assert samples["pargo_export_requests_total"]["left", "completed"] == 4
        assert set(samples["pargo_export_pending_requests"]) == {("left",), ("right",)}


def test_a_server_is_scraped(runtime, play, registry):
    """What the application serves over HTTP is what Prometheus reads."""
    stop = prometheus.instrument(runtime, name="camera", registry=registry)
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        play(runtime)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert parse(text)["pargo_export_requests_total"]["camera", "completed"] == 2
    assert 'pargo_export_request_duration_seconds_bucket{le="+Inf",runtime="camera"} 2.0' in text
    stop()


def test_the_registry_of_the_process_is_the_default(runtime):
    """As everywhere in `prometheus_client`; nothing else of this process uses the name."""
    stop = prometheus.instrument(runtime, name="default-registry")
    assert ("default-registry",) in scrape(prometheus_client.REGISTRY)["pargo_export_pending_requests"]
    stop()


def test_missing_package_is_named_with_its_extra(runtime, monkeypatch):
    """Where `prometheus_client` is not installed."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pargo-export\[telemetry\]'"):
        prometheus.instrument(runtime)
