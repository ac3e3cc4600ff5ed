"""The kernels of the TensorRT plugins on a GPU, launched through the CUDA driver without TensorRT."""

from __future__ import annotations

import pytest
import torch
from tolerances import TOLERANCES

from pargo_kernels import cubin_launcher, reference, trt_quick_plugin
from pargo_kernels.cubin_launcher import CompiledKernel
from pargo_kernels.trt_launch import AttentionLaunch, AttentionNode, AttentionShape

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

NODES = {
    "cross": AttentionNode("PartialGlobalAttention", 8, 288, 16, 2, 0.125),
    "cross-window-3": AttentionNode("PartialGlobalAttention", 4, 12, 5, 3, 0.3),
    "self": AttentionNode("BlockDiagonalAttention", 8, 288, 16, 0, 0.125),
    "self-cascaded": AttentionNode("BlockDiagonalAttention", 4, 40, 4, 7, 0.3),
}
HEAD_DIM = 64
DTYPES = ["float16", "bfloat16", "float32"]


def tensors(node: AttentionNode, dtype: str, *, batch: int, query_batch: int) -> list[torch.Tensor]:
    """Query, key and value of a node, on the GPU."""
    generator = torch.Generator(device="cuda").manual_seed(7)
    queries = node.num_partial + node.num_global
    keys = node.num_partial * node.window if node.operation == "PartialGlobalAttention" else queries
    width = node.num_heads * HEAD_DIM
    return [
        torch.randn(*size, width, generator=generator, device="cuda").to(getattr(torch, dtype))
        for size in ((query_batch, queries), (batch, keys), (batch, keys))
    ]


def expected(
    node: AttentionNode, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """The reference in float64."""
    sizes = {"num_heads": node.num_heads, "num_partial": node.num_partial, "num_global": node.num_global}
    wide = [tensor.double() for tensor in (query, key, value)]
    if node.operation == "PartialGlobalAttention":
        return reference.partial_global_attention(*wide, **sizes, scale=node.scale)
    wide[0] = wide[0].expand_as(wide[1])
    return reference.block_diagonal_attention(*wide, **sizes, scale=node.scale, partial_window=node.window)


def compiled(
    node: AttentionNode, shaped: list[torch.Tensor], dtype: str, *, batch: int, image: str
) -> AttentionLaunch:
    """The launch of a node for this GPU."""
    from pargo_kernels.triton_plugin import compile_attention

    query, key, _ = shaped
    shape = AttentionShape(dtype, query.shape[1], key.shape[1], query.shape[2], batch)
    target = cubin_launcher.current_compute_capability()
    return compile_attention(node, shape, compute_capability=target, image=image)


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return float((result.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", NODES)
@pytest.mark.parametrize(("batch", "query_batch"), [(1, 1), (3, 1), (3, 3)])
def test_cubin_computes_the_reference(case: str, dtype: str, batch: int, query_batch: int) -> None:
    """A cubin that was compiled for one image runs for any batch, through the driver alone."""
    node = NODES[case]
    inputs = tensors(node, dtype, batch=batch, query_batch=query_batch)
    launch = AttentionLaunch.from_bytes(compiled(node, inputs, dtype, batch=1, image="cubin").to_bytes())
    output = torch.full((batch, *inputs[0].shape[1:]), float("nan"), dtype=inputs[0].dtype, device="cuda")
    pointers = [tensor.data_ptr() for tensor in (*inputs, output)]
    values = launch.values(pointers, query_batch=query_batch, batch=batch)
    cubin_launcher.launch(launch.kernel, launch.grid(batch), values, torch.cuda.current_stream().cuda_stream)
    limit = TOLERANCES[f"attention-kernel-{dtype}"].value
    assert relative_error(output, expected(node, *inputs)) <= limit


@pytest.mark.parametrize("case", NODES)
def test_ptx_of_the_quick_plugin_computes_the_reference(case: str) -> None:
    """PTX with its parameters in TensorRT's order, without scratch pointers, is the same kernel."""
    node, batch = NODES[case], 2
    inputs = tensors(node, "float16", batch=batch, query_batch=1)
    launch = compiled(node, inputs, "float16", batch=batch, image="ptx")
    kernel: CompiledKernel = trt_quick_plugin.carried_kernel(launch)
    output = torch.full((batch, *inputs[0].shape[1:]), float("nan"), dtype=torch.float16, device="cuda")
    query, key, value = (tensor.data_ptr() for tensor in inputs)
    stream = torch.cuda.current_stream().cuda_stream
    cubin_launcher.launch(kernel, launch.grid(batch), (query, key, value, 0, output.data_ptr()), stream)
    assert relative_error(output, expected(node, *inputs)) <= TOLERANCES["attention-kernel-float16"].value


def test_launch_is_recorded_in_a_cuda_graph() -> None:
    """A loaded kernel can be captured, and a replay reads the tensors anew."""
    node, batch = NODES["self"], 2
    inputs = tensors(node, "float16", batch=batch, query_batch=batch)
    launch = compiled(node, inputs, "float16", batch=batch, image="cubin")
    output = torch.zeros_like(inputs[0])
    pointers = [tensor.data_ptr() for tensor in (*inputs, output)]
    values = launch.values(pointers, query_batch=batch, batch=batch)
    cubin_launcher.load(launch.kernel)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        cubin_launcher.launch(launch.kernel, launch.grid(batch), values, stream)
    inputs[2].copy_(torch.randn_like(inputs[2]))
    graph.replay()
    torch.cuda.synchronize()
    assert relative_error(output, expected(node, *inputs)) <= TOLERANCES["attention-kernel-float16"].value


def test_driver_names_what_it_refuses() -> None:
    """An image that is no binary is refused with the driver's own words."""
    torch.zeros(1, device="cuda")  # makes a context current
    kernel = CompiledKernel("nothing", b"no cubin", ("*fp16",), num_warps=4, shared_bytes=0)
    with pytest.raises(cubin_launcher.CudaDriverError, match=r"cuModuleLoadData failed with .*INVALID"):
        cubin_launcher.load(kernel)
