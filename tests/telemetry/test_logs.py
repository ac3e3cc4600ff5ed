"""Requests as log records, and the fields of what the package logs by itself."""

from __future__ import annotations

import ast
import logging
import re
from collections import Counter
from pathlib import Path

import pargo_export
from pargo_export.telemetry import logs

PACKAGE = Path(pargo_export.__file__).parent
GUIDE = PACKAGE.parent / "docs" / "embedding.md"
METHODS = {"critical", "debug", "error", "exception", "info", "log", "warning"}


def test_every_request_is_a_record(runtime, play, caplog, requests_by_outcome, images_by_outcome):
    """With its outcome, images and times as fields, at a level that fits; no more after the end."""
    caplog.set_level(logging.DEBUG, "pargo_export.telemetry")
    stop = logs.instrument(runtime, name="door")
    play(runtime)
    records = [record for record in caplog.records if record.name == "pargo_export.telemetry"]
    assert Counter(record.pargo_outcome for record in records) == requests_by_outcome
    images = Counter(dict.fromkeys(requests_by_outcome, 0))
    for record in records:
        assert (record.pargo_event, record.pargo_runtime, record.pargo_num_requests) == ("request", "door", 1)
        images[record.pargo_outcome] += record.pargo_num_images
    assert images == images_by_outcome
    by_outcome = {record.pargo_outcome: record for record in records}
    levels = {name: record.levelname for name, record in by_outcome.items()}
    assert levels == {
        "completed": "DEBUG",
        "replaced": "DEBUG",
        "expired": "WARNING",
        "refused": "WARNING",
        "failed": "ERROR",
    }
    submitted = [record for record in records if record.pargo_outcome == "completed"][1]
    assert min(submitted.pargo_queue_s, submitted.pargo_preprocess_s, submitted.pargo_run_s) > 0
    assert re.fullmatch(
        r"request completed: queue [\d.]+ ms, preprocess [\d.]+ ms, run [\d.]+ ms", submitted.getMessage()
    )
    assert not hasattr(by_outcome["expired"], "pargo_run_s")
    assert by_outcome["expired"].pargo_queue_s >= 0.02
    assert by_outcome["failed"].pargo_error.startswith("ImageError: ")
    assert by_outcome["failed"].pargo_error in by_outcome["failed"].getMessage()
    stop()
    stop()
    caplog.clear()
    play(runtime)
    assert [record for record in caplog.records if record.name == "pargo_export.telemetry"] == []


def test_levels_are_asked_first(runtime, play, caplog):
    """At WARNING, completed and replaced requests are no records; another logger may be given."""
    logger = logging.getLogger("app.camera")
    caplog.set_level(logging.WARNING, logger.name)
    stop = logs.instrument(runtime, logger=logger)
    play(runtime)
    stop()
    records = [record for record in caplog.records if record.name == logger.name]
    assert sorted(record.pargo_outcome for record in records) == ["expired", "failed", "refused"]


def test_opening_and_fallback_have_fields(exported_bundle, caplog):
    """What was opened, on what, in which time."""
    from pargo_export.runtime import Runtime

    caplog.set_level(logging.INFO, "pargo_export.runtime")
    with Runtime.open(exported_bundle, variant="fp32", threads=1):
        (record,) = [record for record in caplog.records if hasattr(record, "pargo_event")]
    assert (record.pargo_event, record.pargo_backend, record.pargo_engine) == ("opened", "onnxruntime", "")
    assert (record.pargo_variant, record.pargo_bundle) == ("fp32", str(exported_bundle))
    assert record.pargo_open_s > 0


def _log_calls():
    """Yield the calls of loggers in the package, with the source of each file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        if "logger." not in source.lower():  # parsing all of them takes seconds
            continue
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in METHODS
                and re.search(r"logger$", ast.unparse(node.func.value), re.IGNORECASE)
            ):
                yield path, source, node


def test_whatever_the_package_logs_has_fields():
    """Every call of a logger hands fields, and its file names the event."""
    calls = list(_log_calls())
    assert len(calls) >= 10
    for path, source, node in calls:
        place = f"{path.name}:{node.lineno}"
        assert any(keyword.arg == "extra" for keyword in node.keywords), place
        assert re.search(r"pargo_event|_fields\(", source), place


def test_every_field_and_event_is_documented():
    """In docs/embedding.md; stable means that somebody may look it up."""
    guide, source = GUIDE.read_text("utf-8"), "".join({text for _, text, _ in _log_calls()})
    events = set(re.findall(r'"pargo_event": "(\w+)"', source)) | set(re.findall(r'_fields\("(\w+)"', source))
    fields = set(re.findall(r'"(pargo_\w+)"', source)) - {"pargo_export"}
    assert {"opened", "backend_failed", "request", "kernel_cache_not_read"} <= events
    for name in events | fields:
        assert f"`{name}`" in guide, name
