"""The `pargo::` nodes as quick plugins of TensorRT whose engine carries the compiled kernel.

Such an engine needs nothing but TensorRT where it runs: no Python, no plugin library. TensorRT 10.9 or later
(`tensorrt.plugin`, in NVIDIA's words experimental); TensorRT-RTX has no such package.

    import onnx, tensorrt
    from pargo_kernels import trt_quick_plugin

    trt_quick_plugin.register_quick_plugins(tensorrt)
    model = onnx.load("bundle/onnx/fp16.onnx")
    trt_quick_plugin.mark_nodes(model)
    parser.parse(model.SerializeToString())
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from pargo_kernels.cubin_launcher import STATIC_SHARED_LIMIT, CompiledKernel
from pargo_kernels.ptx_parameters import reorder_parameters
from pargo_kernels.trt_compiler import NodeCompiler
from pargo_kernels.trt_interfaces import dtype_names
from pargo_kernels.trt_launch import NODE_FIELDS, OPERATIONS, AttentionLaunch, AttentionNode, AttentionShape

__all__ = ["carried_kernel", "mark_nodes", "register_quick_plugins"]

_NAMESPACE = "pargo"  # also the domain of the nodes
_FLOAT, _STRING = 1, 3  # onnx.AttributeProto.AttributeType
_INPUTS_STEP_OUTPUT = (0, 1, 2, 4, 3)  # of query, key, value, output, step: numbers stand before outputs
_ATTRIBUTE_TYPES: dict[str, type] = {name: float if name == "scale" else int for name in NODE_FIELDS}


def register_quick_plugins(trt: ModuleType, *, compute_capability: int | None = None) -> list[str]:
    """Register both operations with TensorRT, to be called once in a process.

    Args:
        trt: The module `tensorrt`.
        compute_capability: For which GPU to compile, 90 for 9.0; the current one by default. The engine carries
            PTX, which below 9.0 later GPUs take as well, from 9.0 on no other.

    Returns:
        The names of the plugins.

    Raises:
        RuntimeError: This TensorRT has no ahead-of-time quick plugins, or Triton cannot compile here.
    """
    trtp = _plugin_package(trt)
    compiler = NodeCompiler(compute_capability, image="ptx")
    compiler.check()

    def launch_of(operation: str, attributes: Sequence[Any], query: Any, key: Any) -> AttentionLaunch:
        node = AttentionNode(operation, **dict(zip(NODE_FIELDS, attributes, strict=True)))
        shapes = [tuple(tensor.shape) for tensor in (query, key)]
        node.check(shapes[0], shapes[1], shapes[1])
        batch = key.shape.opt[0] if key.shape.is_dynamic else key.shape[0]
        names = dtype_names(trt)
        if query.dtype not in names:
            raise ValueError(
                f"{operation}: the query is {query.dtype}, expected one of {', '.join(names.values())}"
            )
        shape = AttentionShape(
            names[query.dtype],
            num_queries=shapes[0][1],
            num_keys=shapes[1][1],
            width=shapes[0][2],
            batch=batch,
        )
        return compiler(node, shape)

    return [_register(trtp, operation, launch_of) for operation in OPERATIONS]


def mark_nodes(model: Any) -> int:
    """Give every `pargo::` node what a quick plugin is found and made by; changes the model in place.

    The parser looks for a plugin in the namespace that a node's attribute `plugin_namespace` names, and a quick
    plugin takes no default for `scale`.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        The number of nodes. The result is for TensorRT alone: other runtimes reject unknown attributes.
    """
    nodes = [node for node in model.graph.node if node.domain == _NAMESPACE]
    for node in nodes:
        present = {attribute.name for attribute in node.attribute}
        if "plugin_namespace" not in present:
            node.attribute.add(name="plugin_namespace", type=_STRING, s=_NAMESPACE.encode())
        if "scale" not in present:
            node.attribute.add(name="scale", type=_FLOAT, f=1.0)
    return len(nodes)


def carried_kernel(launch: AttentionLaunch) -> CompiledKernel:
    """Return the kernel as an engine carries it: inputs, numbers, outputs, and nothing more.

    Args:
        launch: A launch with PTX.

    Raises:
        ValueError: The kernel reads a scratch pointer.
    """
    kernel = launch.kernel
    ptx = reorder_parameters(kernel.image.decode(), kernel.name, _INPUTS_STEP_OUTPUT)
    return CompiledKernel(
        name=kernel.name,
        image=ptx.encode(),
        parameters=tuple(kernel.parameters[position] for position in _INPUTS_STEP_OUTPUT),
        num_warps=kernel.num_warps,
        shared_bytes=kernel.shared_bytes,
        scratch_pointers=0,
    )


def _plugin_package(trt: ModuleType) -> Any:
    version = getattr(trt, "__version__", "of unknown version")
    try:
        package = importlib.import_module(f"{trt.__name__}.plugin")
    except ImportError as error:
        raise RuntimeError(
            f"{trt.__name__} {version} has no package 'plugin' ({error}); quick plugins that carry their kernel need "
            "tensorrt 10.9 or later. Use pargo_kernels.trt_plugin, or the graph without plugins"
        ) from error
    if not hasattr(package, "aot_impl") or not hasattr(package, "KernelLaunchParams"):
        raise RuntimeError(
            f"{trt.__name__} {version} has quick plugins only with Python at run time; expected 10.9 or later. Use "
            "pargo_kernels.trt_plugin, or the graph without plugins"
        )
    return package


def _register(trtp: Any, operation: str, launch_of: Any) -> str:
    """Define one plugin; TensorRT reads names and annotations of the two functions."""
    plugin_id = f"{_NAMESPACE}::{operation}"

    def describe(  # the output is as the query, for every image of the key
        query: Any,
        key: Any,
        value: Any,  # noqa: ARG001
        num_heads: int,  # noqa: ARG001
        num_partial: int,  # noqa: ARG001
        num_global: int,  # noqa: ARG001
        window: int,  # noqa: ARG001
        scale: float,  # noqa: ARG001
    ) -> Any:
        shape = (key.shape_expr[0], query.shape_expr[1], query.shape_expr[2])
        return trtp.from_shape_expr(shape, dtype=query.dtype)

    def carry(
        query: Any,
        key: Any,
        value: Any,  # noqa: ARG001
        num_heads: int,
        num_partial: int,
        num_global: int,
        window: int,
        scale: float,
        outputs: Any,  # noqa: ARG001
        tactic: int,  # noqa: ARG001 - there is one
    ) -> Any:
        launch = launch_of(operation, (num_heads, num_partial, num_global, window, scale), query, key)
        kernel, shape = carried_kernel(launch), launch.shape
        if kernel.shared_bytes > STATIC_SHARED_LIMIT:
            raise RuntimeError(
                f"{operation} wants {kernel.shared_bytes} bytes of shared memory for heads of "
                f"{shape.width // num_heads}; TensorRT gives {STATIC_SHARED_LIMIT} to a kernel that it "
                "carries. Use pargo_kernels.trt_plugin"
            )
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = key.shape_expr[0] * launch.programs
        parameters.grid_y = launch.blocks
        parameters.block_x = 32 * kernel.num_warps
        parameters.shared_mem = kernel.shared_bytes
        # A symbolic query_stride: 1 if the query has as many images as the key, else 0.
        step = (query.shape_expr[0] == key.shape_expr[0]) * (shape.num_queries * shape.width)
        numbers = trtp.SymIntExprs(1)
        numbers[0] = trtp.SymInt32(step)
        return kernel.name, kernel.image.decode(), parameters, numbers

    tensors: dict[str, Any] = dict.fromkeys(("query", "key", "value"), trtp.TensorDesc)
    describe.__annotations__ = tensors | _ATTRIBUTE_TYPES | {"return": trtp.TensorDesc}
    carry.__annotations__ = (
        tensors
        | _ATTRIBUTE_TYPES
        | {"outputs": tuple[trtp.TensorDesc], "tactic": int}
        | {"return": tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]}
    )
    trtp.register(plugin_id)(describe)
    trtp.aot_impl(plugin_id)(carry)
    return plugin_id
