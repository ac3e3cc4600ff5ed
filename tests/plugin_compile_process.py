"""Compile the plugins' kernels for real, in a process of its own; prints what came out as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton

from pargo_kernels import trt_quick_plugin
from pargo_kernels.ptx_parameters import declared_parameters
from pargo_kernels.triton_plugin import compile_attention
from pargo_kernels.trt_launch import AttentionNode, AttentionShape

CASES = {
    "cross": AttentionNode("PartialGlobalAttention", 8, 288, 16, 2, 0.125),
    "self": AttentionNode("BlockDiagonalAttention", 8, 288, 16, 0, 0.125),
    "cascaded": AttentionNode("BlockDiagonalAttention", 2, 20, 3, 5),
    "no-global": AttentionNode("PartialGlobalAttention", 2, 12, 0, 3),
}


def main() -> None:
    """Compile every case in FP16 for one image and for 8, and its PTX."""
    results = [examine(case, node, batch) for case, node in CASES.items() for batch in (1, 8)]
    sys.stdout.write(json.dumps(results))


def examine(case: str, node: AttentionNode, batch: int) -> dict[str, Any]:
    """Compile one case and look at it."""
    queries = node.num_partial + node.num_global
    keys = node.num_partial * node.window if node.operation == "PartialGlobalAttention" else queries
    shape = AttentionShape("float16", queries, keys, node.num_heads * 64, batch)
    cubin, ptx = (
        compile_attention(node, shape, compute_capability=90, image=image) for image in ("cubin", "ptx")
    )
    carried = trt_quick_plugin.carried_kernel(ptx)
    return {
        "case": case,
        "batch": batch,
        "elf": cubin.kernel.image[:4] == b"\x7fELF",
        "parameters": list(cubin.kernel.parameters),
        "declared": declared_parameters(ptx.kernel.image.decode(), ptx.kernel.name),
        "same_launch": (cubin.programs, cubin.blocks) == (ptx.programs, ptx.blocks),
        "programs": cubin.programs,
        "heads": node.num_heads,
        "shared": cubin.kernel.shared_bytes,
        "assembled": assemble(carried.image),
        "carried": [
            declaration.split()[0]
            for declaration in declared_parameters(carried.image.decode(), carried.name)
        ],
        "carried_parameters": list(carried.parameters),
        "scratch": [cubin.kernel.scratch_pointers, carried.scratch_pointers],
    }


def assemble(ptx: bytes) -> str:
    """Run NVIDIA's assembler, which comes with Triton; returns what it complains about."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_bytes(ptx)
        command = [str(triton.knobs.nvidia.ptxas.path), "--gpu-name", "sm_90a", os.fspath(source)]
        done = subprocess.run(
            [*command, "-o", os.fspath(source.with_suffix(".cubin"))],
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stderr if done.returncode else ""


if __name__ == "__main__":
    main()
