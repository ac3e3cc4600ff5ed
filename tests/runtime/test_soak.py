"""Many calls leave nothing behind: memory, open files and threads stay as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("soak_process.py")

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc")


@pytest.mark.parametrize(
    ("num_calls", "growth_kib"),
    [
        # The tokens of one call have 7 KiB; the short one sees what loses as much in every call.
        pytest.param(600, 2_000, id="short"),
        pytest.param(100_000, 4_000, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_nothing_grows(bundle_path, num_calls, growth_kib, record_property):
    """From the second tenth of the calls to the last."""
    command = [sys.executable, PROGRAM, bundle_path, str(num_calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    record_property("looks", found)
    looks, closed = found["looks"], found["closed"]
    assert len(looks) == 11
    first, last = looks[2], looks[-1]
    assert last["rss_kib"] - first["rss_kib"] < growth_kib, looks
    assert {look["files"] for look in looks[1:]} == {first["files"]}, looks
    assert {look["threads"] for look in looks[1:]} == {first["threads"]}, looks
    assert closed["python_threads"] == 1
    assert closed["files"] <= first["files"]
