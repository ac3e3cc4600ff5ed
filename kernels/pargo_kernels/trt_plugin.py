"""The `pargo::` nodes as TensorRT plugins (`IPluginV3`), for `tensorrt` and `tensorrt_rtx` alike.

    import tensorrt
    from pargo_kernels import trt_plugin

    creators = trt_plugin.register_plugins(tensorrt)  # keep them as long as TensorRT is in use
    parser = tensorrt.OnnxParser(network, logger)
    trt_plugin.prefer_plugins(parser, tensorrt)

When an engine is built, the plugin compiles its kernel with Triton for the types and sizes at hand; the engine
carries the binary. Where the engine runs, neither Triton nor PyTorch is needed, only this package and the CUDA
driver. `docs/tensorrt-plugin.md` says what was verified.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from pargo_kernels.trt_compiler import NodeCompiler
from pargo_kernels.trt_interfaces import AttentionPlugin, AttentionPluginCreator
from pargo_kernels.trt_launch import OPERATIONS

__all__ = ["deregister_plugins", "prefer_plugins", "register_plugins"]


def register_plugins(
    trt: ModuleType, *, namespace: str = "", compute_capability: int | None = None, registry: Any = None
) -> list[Any]:
    """Register the creators of both plugins with TensorRT.

    The ONNX parser looks for a plugin of a function node's name in the empty namespace, whatever the node's
    domain is; in another one only if the node has the attribute `plugin_namespace`.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        namespace: Where to register.
        compute_capability: For which GPU to compile, 90 for 9.0; the current one by default.
        registry: A plugin registry of TensorRT, the global one by default.

    Returns:
        The creators. TensorRT keeps no reference: keep them until the last engine is gone.

    Raises:
        RuntimeError: TensorRT refuses one, usually because its name is taken.
    """
    registry = registry if registry is not None else trt.get_plugin_registry()
    compiler = NodeCompiler(compute_capability)
    creators = [_creator_class(trt)(operation, namespace, compiler) for operation in OPERATIONS]
    for creator in creators:
        if not registry.register_creator(creator, namespace):
            raise RuntimeError(
                f"TensorRT refused the plugin {creator.name!r} in the namespace {namespace!r}; "
                "is one of that name registered already?"
            )
    return creators


def deregister_plugins(trt: ModuleType, creators: list[Any], *, registry: Any = None) -> None:
    """Undo `register_plugins`; engines that are still in use keep working."""
    registry = registry if registry is not None else trt.get_plugin_registry()
    for creator in creators:
        registry.deregister_creator(creator)


def prefer_plugins(parser: Any, trt: ModuleType) -> None:
    """Tell an ONNX parser to take a registered plugin rather than a function's body.

    Needed from TensorRT 10.15 on, which has the flag. TensorRT 10.7 to 10.14 have none and always prefer the
    plugin; older parsers always take the body: delete the functions from the model.
    """
    flag = getattr(trt.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE", None)
    if flag is not None:
        parser.set_flag(flag)


@cache
def _creator_class(trt: ModuleType) -> Any:
    """The creator, derived from that module's classes, as is the plugin that it makes."""
    interfaces = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    plugin = type("AttentionPlugin", (AttentionPlugin, *interfaces), {"trt": trt, "interfaces": interfaces})
    interface = trt.IPluginCreatorV3One
    attributes = {"trt": trt, "interface": interface, "plugin_class": plugin}
    return type("AttentionPluginCreator", (AttentionPluginCreator, interface), attributes)
