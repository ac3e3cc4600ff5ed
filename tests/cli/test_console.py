"""The program as a process: what it imports, prints and returns."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pargo_export

ROOT = Path(pargo_export.__file__).parent.parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels"), str(ROOT / "calibration"))),
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "80",
}
PROGRAM = [sys.executable, "-m", "pargo_export"]
HEAVY = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch")


def _run(*arguments, **options):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        **options,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["onnx", "--help"], ["run", "-h"], ["quantize", "-h"], ["calibrate", "-h"]],
)
def test_help_imports_nothing_heavy(arguments):
    """Help comes without loading a framework, and without numpy."""
    code = f"""
import sys
from pargo_export.cli.main import main
try:
    sys.argv = ["pargo-export", *{arguments}]
    main()
finally:
    print(*sorted({set(HEAVY)} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stderr == "\n"


def test_results_and_errors_keep_apart(exported_bundle, tmp_path):
    """Results are on standard output, errors on standard error, and the status tells them apart."""
    good = _run("verify", exported_bundle, "--variant", "fp32", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["passed"] is True
    bad = _run("verify", tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1
    assert _run("verify").returncode == 2


def test_a_closed_pipe_is_no_error(exported_bundle):
    """`pargo-export inspect bundle | head -1` ends quietly."""
    command = f"{' '.join(PROGRAM)} inspect {exported_bundle} --masks | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=ENVIRONMENT)  # noqa: S602
    assert done.stdout.startswith("cross-attention")
    assert "Traceback" not in done.stderr


def test_a_terminal_without_utf8_still_works(exported_bundle):
    """Characters that the terminal lacks are replaced."""
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "latin-1"}
    command = [*PROGRAM, "inspect", str(exported_bundle), "--masks"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b"partial 0        ??" in done.stdout


def test_interrupt_leaves_no_bundle(sample, tmp_path):
    """Ctrl-C in the middle of an export ends with status 130, one line, and no new bundle."""
    bundle = tmp_path / "bundle"
    process = subprocess.Popen(
        # A shell that started the tests in the background has Ctrl-C ignored, and children inherit that.
        ["env", "--default-signal=INT", *PROGRAM, "onnx", str(sample), "-o", str(bundle), "-v"],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    for line in process.stderr:
        if "rewriting" in line:  # the next step is the long one
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert not (bundle / "manifest.json").exists()


def run_on_a_terminal(command):
    """Run a command whose standard error is a terminal; return how it ended and what that showed."""
    master, slave = pty.openpty()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        check=True,
        env=ENVIRONMENT | {"TERM": "xterm"},
    )
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    return done, shown


def test_progress_on_a_terminal(tmp_path):
    """On a terminal progress is shown, on standard error only."""
    done, shown = run_on_a_terminal([*PROGRAM, "sample", "-o", str(tmp_path / "s.safetensors")])
    assert "writing" in shown
    assert "preset tiny" in done.stdout
    assert "writing" not in done.stdout


BAR = """
import sys, time
from pargo_export.cli.report import Reporter
with Reporter() as reporter:
    reporter.step("looking")
    time.sleep(0.5)
    reporter.step("counting")
    for done in range(1, 4):
        reporter.advance(done, 3)
        time.sleep(0.2)
    reporter.step("writing")
    reporter.result({}, lambda: ["done"])
"""


def test_a_bar_on_a_terminal():
    """On a terminal a long step is a bar with its text and numbers, and it is gone when the step is done."""
    done, shown = run_on_a_terminal([sys.executable, "-c", BAR])
    assert "━" in shown
    assert "2/3" in shown
    assert shown.index("looking") < shown.index("counting") < shown.index("2/3") < shown.index("writing")
    assert "counting" not in shown[shown.index("writing") :]
    assert done.stdout == "done\n"
