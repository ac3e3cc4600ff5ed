from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# One commit of the scenarios takes several dozen steps; fewer means that steps are no longer counted.
MIN_STEPS = 40


@pytest.fixture
def drive(tmp_path):
    """Return a function that runs a scenario of the crash driver."""

    def drive(scenario: str) -> list[int]:
        paths = [str(TESTS), str(TESTS.parent)]
        result = subprocess.run(
            [sys.executable, str(TESTS / "bundle/crash_driver.py"), scenario, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return drive


@pytest.mark.parametrize(("scenario", "old"), [("kill-create", 0), ("kill-replace", 1)])
def test_killed_at_every_step(drive, scenario, old):
    """Killed before any step, a commit leaves the whole old bundle or, from one step on, the whole new one."""
    seen = drive(scenario)
    assert len(seen) > MIN_STEPS
    assert set(seen) == {old, old + 1}
    assert seen == sorted(seen)


def test_recovery_killed_at_every_step(drive):
    """A recovery can be killed as often as one likes; the next one goes on."""
    kills = drive("kill-recovery")
    assert len(kills) > MIN_STEPS
    assert max(kills) > 5


def test_killed_at_random_times(drive):
    """Killed at any time, a writer leaves the last generation that it reported, or the one it was committing."""
    assert max(drive("kill-at-random")) > 5


@pytest.mark.parametrize(("scenario", "old"), [("full-create", 0), ("full-replace", 1)])
def test_disk_full_at_every_step(drive, scenario, old):
    """If any step fails for lack of space, the error says which bundle is there, and nothing is left over."""
    seen = drive(scenario)
    assert len(seen) > MIN_STEPS
    assert set(seen) == {old, old + 1}


def test_interrupted_at_every_step(drive):
    """Ctrl-C at any step leaves the old bundle or the new one, and the bundle can be written again."""
    seen = drive("interrupt")
    assert len(seen) > MIN_STEPS
    assert set(seen) == {1, 2}


def test_readers_see_whole_generations(drive):
    """A reader beside a busy writer always opens a consistent bundle, never an older one than before."""
    assert len(set(drive("readers"))) > 3


def test_writers_do_not_lose_updates(drive):
    """Writers that take turns each see the manifest of the one before."""
    assert drive("writers") == [45]
