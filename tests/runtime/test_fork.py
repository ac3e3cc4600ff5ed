"""A runtime and os.fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fork_process.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_forked_child_is_told_and_can_open_its_own(bundle_path, photos, backend):
    """Nothing hangs: the inherited runtime says what to do, a new one computes the same, the parent goes on."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    command = [sys.executable, PROGRAM, bundle_path, photos[0], backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = {}
    for line in done.stdout.splitlines():
        answers |= json.loads(line)
    assert answers.pop("same") is True
    assert answers.pop("parent") is True
    assert answers.pop("close") == "None"
    assert len(answers) == 7
    for name, message in answers.items():
        assert "forked from it" in message, name
        assert "open the bundle in the child" in message, name
