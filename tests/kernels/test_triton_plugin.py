"""The plugins' kernels, compiled ahead of time: what their launcher relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pargo_kernels.trt_launch import AttentionNode, AttentionShape

PROCESS = Path(__file__).parents[1] / "plugin_compile_process.py"
CASES = ["cross", "self", "cascaded", "no-global"]
PTX_TYPES = {"*fp16": ".u64", "i32": ".u32"}


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    """Every case for one image and for eight, see `plugin_compile_process.py`."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, str(PROCESS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_signature_is_what_the_binary_declares(compiled: list[dict[str, Any]], case: str) -> None:
    """Four pointers, the step and Triton's scratch pointers, for every size."""
    for result in (result for result in compiled if result["case"] == case):
        assert result["elf"]
        assert result["parameters"] == ["*fp16"] * 4 + ["i32"]
        declared = [declaration.split()[0] for declaration in result["declared"]]
        expected = [PTX_TYPES[kind] for kind in result["parameters"]]
        assert declared == expected + [".u64"] * result["scratch"][0]


@pytest.mark.parametrize("case", CASES)
def test_programs_are_those_of_one_image(compiled: list[dict[str, Any]], case: str) -> None:
    """A program for each head, whatever batch the work was cut for, and the same for cubin and PTX."""
    results = [result for result in compiled if result["case"] == case]
    assert [result["programs"] for result in results] == [result["heads"] for result in results]
    assert all(result["same_launch"] for result in results)
    assert all(result["shared"] <= 48 * 1024 for result in results)


@pytest.mark.parametrize("case", CASES)
def test_carried_kernel_is_accepted_by_the_assembler(compiled: list[dict[str, Any]], case: str) -> None:
    """PTX with reordered parameters assembles, and declares what TensorRT passes."""
    for result in (result for result in compiled if result["case"] == case):
        assert not result["assembled"]
        assert result["carried"] == [".u64", ".u64", ".u64", ".u32", ".u64"]
        assert result["carried"] == [PTX_TYPES[kind] for kind in result["carried_parameters"]]
        assert result["scratch"] == [2, 0]


def test_interpreter_is_refused() -> None:
    """Where Triton interprets kernels nothing is compiled, and the error says what to unset."""
    from pargo_kernels.triton_device import INTERPRETED
    from pargo_kernels.triton_plugin import compile_attention

    if not INTERPRETED:
        pytest.skip("kernels are compiled on this machine")
    node = AttentionNode("PartialGlobalAttention", 2, 4, 2, 3)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        compile_attention(node, AttentionShape("float16", 6, 12, 32, 1), compute_capability=90)
