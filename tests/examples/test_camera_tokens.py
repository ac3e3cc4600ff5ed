"""The example app, run as a user runs it: on generated frames, on a video, and by the commands of its README."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import Future
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from pargo_export.cli.main import cli
from pargo_export.errors import BackendError, DeadlineError, OverloadError
from pargo_export.runtime import Runtime

FOLDER = Path(__file__).parents[2] / "examples" / "camera_tokens"
SCRIPT = FOLDER / "camera_tokens.py"
WITHOUT_PYTORCH = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnx", "scipy", "torch", "triton"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the app in an empty folder."""
    started = []

    def start_app(*arguments) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", WITHOUT_PYTORCH, SCRIPT, *arguments, "--json-logs"]
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start_app
    for process in started:
        process.kill()
        process.communicate()


def lines_of(stderr: str) -> list[dict]:
    """Return the log lines of the app itself."""
    return [line for line in map(json.loads, stderr.splitlines()) if line["logger"] == "camera_tokens"]


def finish(process: subprocess.Popen[str]) -> list[dict]:
    """Wait for the end, which is a success, and return the lines."""
    stderr = process.stderr.read()
    assert process.wait(60) == 0, stderr
    return lines_of(stderr)


def total(line: dict) -> int:
    """Return how many frames the line has accounted for."""
    return line["camera_encoded"] + line["camera_dropped"] + line["camera_late"]


def test_generated_frames_become_tokens_at_a_rate(start, exported_bundle, tmp_path):
    """At most ten a second; every frame is accounted for, and the tokens are there."""
    arguments = ("--frames", "generated", "--seconds", 0.6, "--deadline-ms", 60000, "-o", "t.safetensors")
    last = finish(start(exported_bundle, *arguments))[-1]
    assert 1 <= last["camera_in"] <= 7
    assert total(last) == last["camera_in"]
    assert last["camera_late"] == 0
    assert last["camera_encoded"] >= 1
    assert 0 < last["camera_median_ms"] <= last["camera_p99_ms"] < 60000
    assert load_file(tmp_path / "t.safetensors")["visual_tokens"].shape == (1, 22, 80)


def test_a_deadline_that_cannot_be_kept_makes_frames_late(start, exported_bundle):
    """Nothing counts as encoded that came too late."""
    last = finish(
        start(exported_bundle, "--frames", "generated", "--seconds", 0.3, "--fps", 30, "--deadline-ms", 0.001)
    )[-1]
    assert last["camera_in"] >= 1
    assert last["camera_encoded"] == 0
    assert last["camera_late"] >= 1
    assert total(last) == last["camera_in"]


def test_what_was_computed_too_late_is_late():
    """By the time from the frame to its tokens; what was cancelled or replaced is dropped."""
    app = runpy.run_path(str(SCRIPT))
    results, tokens = app["Results"](deadline_s=60.0), np.zeros((1, 2, 3), np.float32)
    now = time.monotonic()
    for taken_s, outcome in (
        (now, tokens),
        (now - 61, tokens),
        (now, DeadlineError()),
        (now, OverloadError()),
        (now, None),
    ):
        future = Future()
        if outcome is None:
            future.cancel()
        elif isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        results.done(future, taken_s)
    assert results.counts == {"in": 0, "encoded": 1, "dropped": 2, "late": 2}
    assert not app["STOP"].is_set()
    failed = Future()
    failed.set_exception(BackendError("device lost"))
    results.done(failed, now)
    assert (results.error, app["STOP"].is_set()) == (failed.exception(), True)


def test_a_signal_ends_it_cleanly(start, exported_bundle):
    """Ctrl-C and SIGTERM: the status is 0 and the last line is written; meanwhile metrics are served on a port."""
    ports = (_free_port(), _free_port())
    arguments = ("--frames", "generated", "--fps", 30)
    processes = [start(exported_bundle, *arguments, "--prometheus-port", port) for port in ports]
    for process, port, number in zip(processes, ports, (signal.SIGINT, signal.SIGTERM), strict=True):
        lines = iter(process.stderr.readline, "")
        assert any('"camera_tokens"' in line for line in lines)  # of the first second
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        assert re.search(
            r'pargo_export_requests_total\{outcome="completed",runtime="camera"\} [1-9]', text
        ), text
        process.send_signal(number)
        last = finish(process)[-1]
        assert total(last) == last["camera_in"] >= 2


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def video(tmp_path) -> tuple[Path, int]:
    """Return a video of twelve photographs shifted step by step, and the number of its frames."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut()[:240, :320, ::-1])
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30.0, (320, 240))
    assert writer.isOpened()
    for index in range(12):
        writer.write(np.ascontiguousarray(np.roll(picture, 10 * index, axis=1)))
    writer.release()
    return path, 12


def test_a_video_is_read_to_its_end(start, exported_bundle, video, tmp_path):
    """At its own speed, and only what is due; the last frame, which nothing replaces, is computed, in its colours."""
    import cv2

    path, num_frames = video
    arguments = (exported_bundle, "--frames", path, "--deadline-ms", 60000, "-o", "tokens.safetensors")
    began = time.monotonic()
    sparse = start(*arguments[:-2], "--fps", 2)
    last = finish(start(*arguments, "--fps", 1000))[-1]
    assert time.monotonic() - began > (num_frames - 1) / 30
    assert last["camera_in"] == num_frames == total(last)
    assert last["camera_late"] == 0
    capture = cv2.VideoCapture(str(path))
    frames = [capture.read()[1] for _ in range(num_frames)]
    capture.release()
    with Runtime.open(exported_bundle) as runtime:
        expected = runtime.encode(np.ascontiguousarray(frames[-1][:, :, ::-1]))
    found = load_file(tmp_path / "tokens.safetensors")["visual_tokens"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert 1 <= finish(sparse)[-1]["camera_in"] <= 4  # the first, unless the machine was held up


def test_what_opencv_cannot_open_is_named(start, exported_bundle, tmp_path):
    """With a status that is no success."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    process = start(exported_bundle, "--frames", tmp_path / "missing.mp4")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "missing.mp4: OpenCV opens no such camera or video" in stderr


def commands() -> list[str]:
    """Return the indented commands of the README."""
    lines = [
        line.strip() for line in (FOLDER / "README.md").read_text("utf-8").splitlines() if line[:4] == "    "
    ]
    return [line for line in lines if line.startswith(("pargo-export ", "python "))]


def test_the_commands_of_the_readme_work(exported_bundle, tmp_path, monkeypatch):
    """All but those that need a camera or a video of the reader's are executed, in order, in one folder.

    Of the export, which takes long and is executed elsewhere, the command is parsed and the result of another one taken.
    """
    monkeypatch.chdir(tmp_path)
    executed = []
    for command in commands():
        program, *arguments = shlex.split(command)
        if arguments[0] == "onnx":
            parsed = cli.get_command(click.Context(cli), "onnx").make_context("onnx", arguments[1:])
            shutil.copytree(exported_bundle, parsed.params["output"])
        elif program == "pargo-export":
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
        elif "generated" in command:
            replaced = {"camera_tokens.py": str(SCRIPT), "3": "0.3", "9464": str(_free_port()), "50": "5000"}
            done = subprocess.run(
                [sys.executable, *(replaced.get(item, item) for item in arguments)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert re.search(r" in \d+ \| encoded \d", done.stderr), done.stderr
        else:
            continue
        executed.append(command)
    assert len(executed) == 5
    assert (tmp_path / "tokens.safetensors").stat().st_size > 22 * 80 * 4
