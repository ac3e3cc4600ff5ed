"""Compile the attention kernels for the TensorRT plugins.

A TensorRT tensor is contiguous, and all its sizes but the batch are known when the engine is built. So strides
and the softmax factor become constants, and what remains of a kernel's parameters is the four tensors and the
step from one image's queries to the next, which is 0 where one query serves all images. The keys of a global
query are not split between programs: that needs a workspace with counters that start at 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pargo_kernels import triton_block_diagonal, triton_partial_global
from pargo_kernels.cubin_launcher import CompiledKernel
from pargo_kernels.triton_common import KernelCall
from pargo_kernels.triton_device import INTERPRETED
from pargo_kernels.trt_launch import AttentionLaunch, AttentionNode, AttentionShape

__all__ = ["compile_attention", "require_compiler"]

_TRITON_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
_POINTERS = ("query_ptr", "key_ptr", "value_ptr", "output_ptr")
_STEP = "query_batch_stride"
_DIVISIBLE = [["tt.divisibility", 16]]
# Of PTX that an engine carries: that of CUDA 12.8, with which TensorRT 10.9 came, or the first that knows the
# architecture. Triton's default is its own assembler's, and an older driver refuses that.
_PTX_VERSION = 87
_PTX_VERSIONS = {110: 90, 121: 88}


def require_compiler() -> None:
    """Make sure that Triton compiles in this process.

    Raises:
        RuntimeError: It interprets kernels.
    """
    if INTERPRETED:
        raise RuntimeError(
            "TRITON_INTERPRET is set, so that Triton cannot compile in this process; unset it before the kernels "
            "are imported"
        )


@lru_cache(maxsize=64)
def compile_attention(
    node: AttentionNode,
    shape: AttentionShape,
    *,
    compute_capability: int,
    image: Literal["cubin", "ptx"] = "cubin",
) -> AttentionLaunch:
    """Compile the kernel of one node; no GPU is needed.

    Args:
        node: What is computed.
        shape: On which tensors.
        compute_capability: 90 for 9.0.
        image: Machine code for exactly that architecture, or PTX, which the driver compiles for it or a later
            one below 9.0; from 9.0 on Triton makes it for one architecture (`sm_90a`) and it runs on no other.

    Raises:
        RuntimeError: Triton interprets kernels in this process, or the kernel asks for what the launcher does
            not provide.
    """
    require_compiler()
    kernel, (grid, arguments, options) = _launch(node, shape)
    if grid[0] % shape.batch:
        raise RuntimeError(
            f"{kernel.__name__} has {grid[0]} programs for {shape.batch} images, expected a multiple"
        )
    signature, constants = dict[str, str](), dict[str, Any]()
    compiler_options = {name: options.pop(name) for name in ("num_warps", "num_stages")}
    if image == "ptx":
        compiler_options["ptx_version"] = _PTX_VERSIONS.get(compute_capability, _PTX_VERSION)
    values = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    for name in kernel.arg_names:
        if name in _POINTERS:
            signature[name] = f"*{_TRITON_DTYPES[shape.dtype]}"
        elif name == _STEP:
            signature[name] = "i32"
        else:
            signature[name] = "constexpr"
            constants[name] = values[name]
    aligned = [*_POINTERS, *([_STEP] if shape.num_queries * shape.width % 16 == 0 else [])]
    attributes = {(kernel.arg_names.index(name),): _DIVISIBLE for name in aligned}
    compiled: Any = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", compute_capability, 32),
        options=compiler_options,
    )
    metadata = compiled.metadata
    for wanted in ("global_scratch_size", "profile_scratch_size"):
        if getattr(metadata, wanted, 0):
            raise RuntimeError(
                f"{kernel.__name__} has {wanted}={getattr(metadata, wanted)}, expected no scratch memory"
            )
    binary = compiled.asm[image]
    return AttentionLaunch(
        kernel=CompiledKernel(
            name=metadata.name,
            image=binary.encode() if isinstance(binary, str) else binary,
            parameters=tuple(kind for kind in signature.values() if kind != "constexpr"),
            num_warps=metadata.num_warps,
            shared_bytes=metadata.shared,
        ),
        shape=shape,
        programs=grid[0] // shape.batch,
        blocks=grid[1],
    )


def _launch(node: AttentionNode, shape: AttentionShape) -> tuple[Any, KernelCall]:
    """Ask the kernel's own module how it would be launched on contiguous tensors."""
    dtype = getattr(torch, shape.dtype)
    query, output = (
        torch.empty((shape.batch, shape.num_queries, shape.width), dtype=dtype, device="meta")
        for _ in range(2)
    )
    key, value = (
        torch.empty((shape.batch, shape.num_keys, shape.width), dtype=dtype, device="meta") for _ in range(2)
    )
    sizes: dict[str, Any] = {
        "num_heads": node.num_heads,
        "num_partial": node.num_partial,
        "num_global": node.num_global,
    }
    if node.operation == "PartialGlobalAttention":
        partial_global = triton_partial_global.launch_arguments(
            query, key, value, output, **sizes, scale=node.scale, num_splits=1
        )
        return triton_partial_global.partial_global_kernel, partial_global
    block_diagonal = triton_block_diagonal.launch_arguments(
        query, key, value, output, **sizes, scale=node.scale, partial_window=node.window
    )
    return triton_block_diagonal.block_diagonal_kernel, block_diagonal
