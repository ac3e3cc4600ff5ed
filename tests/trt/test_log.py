"""What TensorRT says reaches Python's logging and our error messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pargo_export.trt import Log

INTERNAL, ERROR, WARNING, INFO, VERBOSE = range(5)

# In a process of its own: TensorRT keeps the first logger that it is given.
REAL = """
from pargo_export.trt import load_tensorrt
tensorrt = load_tensorrt("rtx")
with tensorrt.log.watch() as log:
    runtime = tensorrt.module.Runtime(tensorrt.logger)
    found = runtime.deserialize_cuda_engine(b"this is no engine" * 8)
print(found is None, log.reason("silence"), sep="|")
"""


def test_errors_are_the_reason():
    """The last errors are told, each once; what is less severe is left out."""
    log = Log("test")
    for severity, text in ((ERROR, "first"), (WARNING, "careful"), (ERROR, " first\n"), (INTERNAL, "then")):
        log.write(severity, text)
    assert log.reason("nothing") == "first; then"
    assert log.lines(WARNING) == ["first", "careful", "first", "then"]


def test_warnings_where_there_is_no_error():
    """A failure without an error is explained by the warnings, one without either by the caller."""
    log = Log("test")
    log.write(INFO, "chatter")
    assert log.reason("nothing was said") == "nothing was said"
    log.write(WARNING, "low memory")
    assert log.reason("nothing was said") == "low memory"


def test_only_the_last_are_told():
    """A message stays readable when TensorRT repeats itself in many words."""
    log = Log("test")
    for number in range(300):
        log.write(ERROR, f"error {number}")
    assert log.reason("") == "error 296; error 297; error 298; error 299"
    assert len(log.lines()) == 200


def test_details_do_not_push_errors_out():
    """A build says thousands of things after the error that explains it."""
    log = Log("test")
    log.write(ERROR, "the reason")
    for number in range(1000):
        log.write(VERBOSE, f"detail {number}")
    assert log.reason("nothing") == "the reason"


def test_a_watch_begins_empty():
    """What was said before belongs to something else."""
    log = Log("test")
    log.write(ERROR, "old")
    with log.watch() as watched:
        assert watched.reason("nothing") == "nothing"
        log.write(ERROR, "new")
    assert log.reason("nothing") == "new"


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (INTERNAL, logging.WARNING),
        (ERROR, logging.WARNING),
        (WARNING, logging.WARNING),
        (INFO, logging.INFO),
        (VERBOSE, logging.DEBUG),
    ],
)
def test_levels_of_logging(caplog, severity, level):
    """Errors become exceptions of ours, so that the log has them as warnings only."""
    with caplog.at_level(logging.DEBUG, logger="pargo_export.test"):
        Log("test").write(severity, "100% done")
    assert caplog.record_tuples == [("pargo_export.test", level, "100% done")]


def test_noise_of_the_parser_is_no_warning(caplog):
    """What the parser says about every repeated function would hide what matters."""
    log = Log("test")
    text = (
        "ImporterContext.hpp:501: A node named node_of_output already exists, the output tensors of this new instance "
        "will not be queryable."
    )
    with caplog.at_level(logging.DEBUG, logger="pargo_export.test"):
        log.write(WARNING, text)
    assert caplog.record_tuples == [("pargo_export.test", logging.DEBUG, text)]
    assert log.reason("nothing") == "nothing"


def test_messages_of_many_threads():
    """TensorRT logs from its own threads."""
    log = Log("test")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.write(ERROR, str(number)), range(100)))
    assert sorted(map(int, log.lines())) == list(range(100))


def test_the_real_rtx_speaks_through_it():
    """The bindings take our logger, and a refusal of TensorRT can be told."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True)
    refused, reason = done.stdout.strip().split("|")
    assert refused == "True"
    assert reason != "silence"
