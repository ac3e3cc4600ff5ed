"""The steps of a campaign on a GPU, as far as they can be checked without one."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import frontend_gpu
import gpu_campaign
import pytest
from gpu_campaign import Step, list_steps, run_steps

from pargo_export.cli.main import cli
from pargo_kernels import aot

TOOL = ("-m", "pargo_export")


@pytest.fixture
def steps(tmp_path):
    """Return the steps."""
    return list_steps(tmp_path, "90")


def python_step(name, code, limit_s=30, **variables):
    """Return a step that runs Python code."""
    return Step(name, limit_s, (sys.executable, "-c", code), variables)


def test_every_command_line_is_one(steps):
    """The commands take the arguments that the steps give them; nothing is run."""
    for step in steps:
        program, arguments = step.command[1:3], step.command[3:]
        if program == TOOL:
            command = cli.get_command(click.Context(cli), arguments[0])
            command.make_context(arguments[0], [*arguments[1:]])
        elif program[0].endswith("frontend_gpu.py"):
            parsed = frontend_gpu.build_parser().parse_args([program[1], *arguments])
            assert parsed.json.name == f"{step.name}.json"
        elif program == ("-m", "pargo_kernels.aot"):
            assert aot._parser().parse_args([*arguments]).arch == "90"
    assert len([step for step in steps if step.command[1:3] == TOOL]) == 7


def test_a_failure_and_a_step_that_hangs_do_not_stop_the_others(tmp_path):
    """Their status is recorded, what they printed is in their logs, and the others run."""
    steps = [
        python_step("bad", "print('why it failed'); raise SystemExit(3)"),
        python_step("endless", "import time; print('begun', flush=True); time.sleep(60)", limit_s=2),
        python_step("good", "import os, pargo_kernels; print(os.environ['WORD'])", WORD="a word"),
    ]
    assert run_steps(steps, tmp_path) == ["bad", "endless"]
    record = json.loads((tmp_path / "steps.json").read_text("utf-8"))
    assert [record[name]["status"] for name in ("bad", "endless", "good")] == [3, "ended after 2 s", 0]
    logs = [(tmp_path / f"{step.name}.log").read_text("utf-8") for step in steps]
    assert [log.strip() for log in logs] == ["why it failed", "begun", "a word"]


def test_what_ended_well_is_not_run_again(tmp_path):
    """A campaign goes on with what failed or was not run; `only` runs again what it names."""
    steps = [python_step("first", "print(1)"), python_step("second", "raise SystemExit(1)")]
    assert run_steps(steps, tmp_path) == ["second"]
    (tmp_path / "first.log").unlink()
    mended = [steps[0], python_step("second", "print(2)")]
    assert run_steps(mended, tmp_path) == []
    assert not (tmp_path / "first.log").exists()
    assert run_steps(mended, tmp_path, only=("first",)) == []
    assert (tmp_path / "first.log").read_text("utf-8").strip() == "1"


@pytest.mark.skipif(gpu_campaign.find_compute_capability() is not None, reason="there is a GPU")
def test_without_a_gpu(tmp_path):
    """It says why it does nothing, and still lists the commands; a wrong name is refused."""
    script = gpu_campaign.__file__
    refused = subprocess.run(
        [sys.executable, script, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "no NVIDIA GPU" in refused.stderr
    assert not (tmp_path / "out").exists()
    listed = subprocess.run(
        [sys.executable, script, str(tmp_path), "--list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == len(list_steps(tmp_path, "90"))
    wrong = subprocess.run(
        [sys.executable, script, str(tmp_path), "--list", "--only", "benhc"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "no step is called benhc" in wrong.stderr
