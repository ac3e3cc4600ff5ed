"""What the plugin and its creator do when TensorRT calls them; `trt_plugin.py` joins them to TensorRT's classes.

The methods carry the names and parameters of `IPluginV3OneCore`, `IPluginV3OneBuild`, `IPluginV3OneRuntime` and
`IPluginCreatorV3One`. The same classes serve `tensorrt` and `tensorrt_rtx`, so nothing here imports either.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

from pargo_kernels import cubin_launcher
from pargo_kernels.trt_compiler import NodeCompiler
from pargo_kernels.trt_launch import NODE_FIELDS, AttentionLaunch, AttentionNode, AttentionShape

__all__ = [
    "AttentionPlugin",
    "AttentionPluginCreator",
    "attribute_fields",
    "dtype_names",
]

_VERSION = "1"
_KERNEL_FIELD = "kernel"
_ALIGNMENT = 16  # bytes; the kernels load 16 bytes at once


def dtype_names(trt: Any) -> dict[Any, str]:
    """Return TensorRT's data types that the kernels take, and PyTorch's names of them."""
    return {trt.float16: "float16", trt.bfloat16: "bfloat16", trt.float32: "float32"}


class AttentionPlugin:
    """One node: core, build and runtime capability in one object."""

    trt: ClassVar[ModuleType]
    interfaces: ClassVar[tuple[type[Any], ...]]

    def __init__(
        self,
        node: AttentionNode,
        namespace: str,
        compiler: NodeCompiler,
        launch: AttentionLaunch | None = None,
    ) -> None:
        for interface in self.interfaces:  # bindings want each constructor called, and no super()
            interface.__init__(self)
        self.plugin_name = node.operation
        self.plugin_namespace = namespace
        self.plugin_version = _VERSION
        self.num_outputs = 1
        self.timing_cache_id = repr(node)
        self.node = node
        self.compiler = compiler
        self.launch = launch

    def get_capability_interface(self, type: Any) -> AttentionPlugin:  # noqa: A002, ARG002 - TensorRT's name
        """Return the object that has the capability: this one."""
        return self

    def clone(self) -> AttentionPlugin:
        """Return a copy; the compiled kernel is shared."""
        return self.__class__(self.node, self.plugin_namespace, self.compiler, self.launch)

    def get_output_data_types(self, input_types: list[Any]) -> list[Any]:
        """Return the output's type: that of the inputs."""
        return [input_types[0]]

    def get_output_shapes(
        self,
        inputs: list[Any],
        shape_inputs: list[Any],  # noqa: ARG002
        expr_builder: Any,  # noqa: ARG002
    ) -> list[Any]:
        """Return `[B, Q, C]`: the query may have batch 1, so B is the key's."""
        self.node.check(*(_known(dims) for dims in inputs))
        query, key, _ = inputs
        output = self.trt.DimsExprs(3)
        output[0], output[1], output[2] = key[0], query[1], query[2]
        return [output]

    def supports_format_combination(self, pos: int, in_out: list[Any], num_inputs: int) -> bool:  # noqa: ARG002
        """Take contiguous tensors of one of the three types, all of the same."""
        desc, first = in_out[pos].desc, in_out[0].desc
        linear = desc.format == self.trt.TensorFormat.LINEAR
        return bool(linear and desc.type in dtype_names(self.trt) and desc.type == first.type)

    def configure_plugin(self, in_: list[Any], out: list[Any]) -> None:  # noqa: ARG002
        """Compile for the types and sizes at hand; the batch only decides how the work is cut."""
        query, key, value = (tuple(tensor.desc.dims) for tensor in in_)
        self.node.check(query, key, value)
        shape = AttentionShape(
            dtype_names(self.trt)[in_[0].desc.type],
            num_queries=query[1],
            num_keys=key[1],
            width=query[2],
            batch=max(1, in_[1].opt[0]),
        )
        self.launch = self.compiler(self.node, shape)

    def get_valid_tactics(self) -> list[int]:
        """Return the numbers of further ways to compute; there are none."""
        return []

    def set_tactic(self, tactic: int) -> None:
        """Take the one way there is."""

    def get_fields_to_serialize(self) -> Any:
        """Return the attributes and the compiled kernel, for the engine."""
        values = [getattr(self.node, name) for name in NODE_FIELDS]
        fields, self._serialized_fields = attribute_fields(self.trt, NODE_FIELDS, values)
        self._serialized_kernel = self._configured().to_bytes()
        kind = self.trt.PluginFieldType.CHAR
        fields.append(self.trt.PluginField(_KERNEL_FIELD, self._serialized_kernel, kind))
        return self.trt.PluginFieldCollection(fields)

    def attach_to_context(self, resource_context: Any) -> AttentionPlugin:  # noqa: ARG002
        """Return the plugin for one execution context."""
        return self.clone()

    def on_shape_change(self, in_: list[Any], out: list[Any]) -> None:  # noqa: ARG002
        """Load the kernel: that is not allowed once a CUDA graph is being recorded."""
        self.node.check(*(tuple(tensor.dims) for tensor in in_))
        cubin_launcher.load(self._configured().kernel)

    def enqueue(
        self,
        input_desc: list[Any],
        output_desc: list[Any],  # noqa: ARG002
        inputs: list[int],
        outputs: list[int],
        workspace: int,  # noqa: ARG002
        stream: int,
    ) -> None:
        """Put the one launch into the stream."""
        launch, pointers = self._configured(), [*inputs, *outputs]
        if any(pointer % _ALIGNMENT for pointer in pointers):
            raise ValueError(
                f"{self.plugin_name}: tensors at {', '.join(map(hex, pointers))}, expected multiples of "
                f"{_ALIGNMENT}; give the engine aligned buffers"
            )
        query_batch, batch = input_desc[0].dims[0], input_desc[1].dims[0]
        values = launch.values(pointers, query_batch=query_batch, batch=batch)
        cubin_launcher.launch(launch.kernel, launch.grid(batch), values, stream)

    def _configured(self) -> AttentionLaunch:
        if self.launch is None:
            raise RuntimeError(
                f"{self.plugin_name} has no kernel yet; build the engine with TensorRT's builder"
            )
        return self.launch


class AttentionPluginCreator:
    """Makes plugins from a node's attributes, or from what an engine keeps."""

    trt: ClassVar[ModuleType]
    interface: ClassVar[type[Any]]
    plugin_class: ClassVar[type[AttentionPlugin]]

    def __init__(self, operation: str, namespace: str, compiler: NodeCompiler) -> None:
        self.interface.__init__(self)
        self.name = operation
        self.plugin_namespace = namespace
        self.plugin_version = _VERSION
        self.compiler = compiler
        announced = [
            self.trt.PluginField(name, array.array("i"), _field_type(self.trt, name)) for name in NODE_FIELDS
        ]
        self.field_names = self.trt.PluginFieldCollection(announced)

    def create_plugin(self, name: str, field_collection: Any, phase: Any) -> AttentionPlugin:  # noqa: ARG002
        """Return the plugin of a node with these attributes."""
        if phase == self.trt.TensorRTPhase.BUILD:
            self.compiler.check()  # here, since TensorRT-RTX 1.7 does not survive an error in configure_plugin
        attributes: dict[str, Any] = {}
        launch = None
        for given in field_collection:
            if given.name == _KERNEL_FIELD:
                launch = AttentionLaunch.from_bytes(given.data.tobytes())
            elif given.name in NODE_FIELDS and given.size:
                number = given.data.reshape(-1)[0]
                attributes[given.name] = float(number) if given.name == "scale" else int(number)
        missing = [wanted for wanted in NODE_FIELDS if wanted != "scale" and wanted not in attributes]
        if missing:
            raise ValueError(
                f"{self.name} without {', '.join(missing)}; pass the attributes of the exported node"
            )
        node = AttentionNode(self.name, **attributes)
        return self.plugin_class(node, self.plugin_namespace, self.compiler, launch)


def attribute_fields(
    trt: ModuleType, names: Sequence[str], values: Sequence[float]
) -> tuple[list[Any], list[array.array[Any]]]:
    """Return plugin fields of a node's attributes, and the memory that they point into.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        names: Some of `NODE_FIELDS`.
        values: One for each.

    Returns:
        The fields, and what has to be kept for as long as they are read: a field keeps no reference.
    """
    buffers = [
        array.array("f" if name == "scale" else "i", [value])
        for name, value in zip(names, values, strict=True)
    ]
    fields = [
        trt.PluginField(name, buffer, _field_type(trt, name))
        for name, buffer in zip(names, buffers, strict=True)
    ]
    return fields, buffers


def _field_type(trt: ModuleType, name: str) -> Any:
    return trt.PluginFieldType.FLOAT32 if name == "scale" else trt.PluginFieldType.INT32


def _known(dims: Any) -> tuple[int, ...]:
    """A symbolic shape as numbers, -1 for what is not known."""
    return tuple(dim.get_constant_value() if dim.is_constant() else -1 for dim in dims)
