"""Subjects in processes of their own: what goes wrong there is told here, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bench.process import SubjectProcess
from pargo_export.errors import BackendError


def wait_for_end(pid: int) -> bool:
    """Whether a process ends within the grace that a worker has."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def wait_until_busy(pid: int) -> None:
    """Wait until a process that was idle computes."""
    begin = psutil.Process(pid).cpu_times().user
    for _ in range(400):
        if psutil.Process(pid).cpu_times().user > begin + 0.1:
            return
        time.sleep(0.05)
    raise AssertionError("it does not compute")


def test_what_a_process_answers(make_spec, tmp_path):
    """It says what it is, encodes, and times every boundary; its end is clean."""
    spec = make_spec("sleeper", "sleep", stages=True)
    with SubjectProcess(spec, [PHOTOGRAPH, PHOTOGRAPH], tmp_path / "log") as process:
        facts = process.facts
        assert (facts.name, facts.variant, facts.backend, facts.device) == (
            "sleeper",
            "fp32",
            "onnxruntime",
            "CPU",
        )
        assert facts.load_s is not None
        assert facts.load_s > 0
        assert len(facts.graph_sha256 or "") == 64
        assert (process.max_batch, process.has_stages) == (4, True)

        process.ask("encode", num_images=3, batch=2, out=str(tmp_path / "out.npy"))
        tokens = np.load(tmp_path / "out.npy")
        assert tokens.shape[0] == 3
        assert np.allclose(tokens[0], tokens[1])

        where = {"batch": 2, "concurrency": 1}
        answer = process.ask("time", boundary="run", iterations=4, **where)
        assert len(answer["samples_ms"]["run"]) == 4
        assert min(answer["samples_ms"]["run"]) >= 20
        assert 1e-6 * (answer["end_ns"] - answer["start_ns"]) >= sum(answer["samples_ms"]["run"])
        assert answer["start_ns"] < answer["end_ns"] < time.perf_counter_ns()
        answer = process.ask("time", boundary="end_to_end", duration_s=0.001, batch=1, concurrency=2)
        assert len(answer["samples_ms"]["end_to_end"]) >= 1
        answer = process.ask("time", boundary="stages", iterations=2, **where)
        assert answer["samples_ms"] == {
            "host_to_device": [0, 0],
            "compute": [2, 2],
            "device_to_host": [1, 1],
        }
        with pytest.raises(BackendError, match=r"sleeper: rate: found -1"):
            process.ask("put_load", rate=-1.0, duration_s=1.0)
        assert process.ask("warm_up", boundary="run", runs=1, **where) == {}  # it goes on after an error
    assert wait_for_end(process.pid)
    assert process._process.returncode == 0
    with pytest.raises(BackendError, match="exit status 0"):
        process.ask("time", boundary="run", iterations=1, **where)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no loading", "faulty: RuntimeError: it cannot be loaded"),
        ("exit", r"(?s)faulty: its process ended with exit status 3; it printed last:.*a last word"),
    ],
)
def test_a_subject_that_cannot_be_loaded(make_spec, tmp_path, fault, message):
    """The error says what it said; what it prints is no answer."""
    with pytest.raises(BackendError, match=message):
        SubjectProcess(make_spec("faulty", fault), [PHOTOGRAPH], tmp_path / "log")


def test_a_subject_that_is_killed(make_spec, tmp_path):
    """A process that is killed is told with the signal, the likely reason and the end of what it printed."""
    process = SubjectProcess(make_spec("mortal", "die"), [PHOTOGRAPH], tmp_path / "log")
    with process, pytest.raises(BackendError, match=r"(?s)mortal: .* SIGKILL.*memory.*about to die"):
        process.ask("warm_up", boundary="run", batch=1, concurrency=1, runs=1)


def test_a_subject_that_does_not_close(make_spec, tmp_path, monkeypatch):
    """A library that hangs when it is freed is ended, and is no error: everything was measured."""
    monkeypatch.setattr("pargo_export.bench.process._CLOSE_S", 0.2)
    with SubjectProcess(make_spec("hanging", "hang"), [PHOTOGRAPH], tmp_path / "log") as process:
        pid = process.pid
    assert wait_for_end(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_behind(make_spec, tmp_path, how):
    """A worker in the middle of a long block ends when the process that asked it is killed or interrupted."""
    spec = make_spec()
    code = f"""
import json, sys
from pathlib import Path
from pargo_export.bench.process import SubjectProcess, SubjectSpec
from pargo_export.bench.records import Subject
spec = SubjectSpec(
    Subject.model_validate_json({spec.facts.model_dump_json()!r}), {spec.factory!r}, json.loads({json.dumps(spec.arguments)!r})
)
with SubjectProcess(spec, [Path({str(PHOTOGRAPH)!r})], Path({str(tmp_path / "log")!r})) as process:
    print(process.pid, flush=True)
    process.ask("time", boundary="run", batch=1, concurrency=1, duration_s=60)
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert starter.stdout is not None
    with starter.stdout:
        worker = int(starter.stdout.readline())
        wait_until_busy(worker)
        if how is signal.SIGINT:
            os.killpg(starter.pid, how)  # as a terminal does
        else:
            starter.send_signal(how)
        starter.wait(20)
    assert wait_for_end(worker)
