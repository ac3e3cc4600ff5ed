"""Log records as JSON: one line, every field, always valid."""

from __future__ import annotations

import io
import json
import logging
import os
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from pargo_export.telemetry import JsonFormatter


@pytest.fixture
def log():
    """Return a logger and a function that returns the lines it wrote, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("pargo_export.test")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    return logger, lambda: [
        json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()
    ]


def test_a_record_is_one_line_with_its_fields(log):
    """The message is formatted, extra fields keep their types, and line ends stay inside the text."""
    logger, read = log
    logger.warning(
        "batch %d:\nslow", 4, extra={"pargo_event": "slow", "seconds": 0.5, "sizes": [1, 2], "no": None}
    )
    (line,) = read()
    time = datetime.fromisoformat(line.pop("time"))
    assert abs(datetime.now(timezone.utc) - time) < timedelta(minutes=1)
    assert line == {
        "level": "WARNING",
        "logger": "pargo_export.test",
        "message": "batch 4:\nslow",
        "thread": "MainThread",
        "pargo_event": "slow",
        "seconds": 0.5,
        "sizes": [1, 2],
        "no": None,
    }


def test_a_field_of_an_own_name_does_not_hide_the_record(log):
    """It gets an underscore."""
    logger, read = log
    logger.info("text", extra={"level": 7, "time": "noon"})
    (line,) = read()
    assert (line["level"], line["level_"], line["time_"]) == ("INFO", 7, "noon")


def test_what_json_does_not_know_is_text(log):
    """NaN, arrays, arbitrary objects, a list that holds itself, names of files that are no Unicode."""
    logger, read = log
    endless = []
    endless.append(endless)
    name = os.fsdecode(b"\xff.jpg")
    values = {"nan": float("nan"), "number": np.float32(2), "inside": {"x": float("inf")}, "endless": endless}
    logger.info("%s", name, extra={**values, "fine": 1.5})
    (line,) = read()
    assert (line["nan"], line["number"], line["inside"]) == ("nan", "2.0", "{'x': inf}")
    assert (line["endless"], line["fine"], line["message"]) == ("[[...]]", 1.5, name)


def test_tracebacks_are_fields(log):
    """The exception with its traceback, and the stack where it was asked for."""
    logger, read = log
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logger.exception("failed", stack_info=True)
    (line,) = read()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")
    assert "test_tracebacks_are_fields" in line["stack"]
