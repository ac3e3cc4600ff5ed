"""Take the quick plugins through NVIDIA's own `tensorrt.plugin` package, in a process of its own; prints JSON.

The package is Python on top of TensorRT's bindings, which cannot be imported without the library. What it needs of
them comes from TensorRT-RTX, or is small enough to be stated here: symbolic integers that can be evaluated, and
empty base classes. So NVIDIA's checks of signatures and its calls are real; TensorRT itself is not there.

Usage: `quick_plugin_process.py FOLDER`, the folder that holds `plugin/`.
"""

from __future__ import annotations

import enum
import importlib
import json
import operator
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx

from pargo_kernels import trt_quick_plugin
from pargo_kernels.ptx_parameters import declared_parameters

ATTRIBUTES = {"num_heads": 2, "num_partial": 6, "num_global": 2, "window": 3, "scale": 0.25}
OPERATIONS = {
    "SUM": operator.add,
    "PROD": operator.mul,
    "SUB": operator.sub,
    "MAX": max,
    "MIN": min,
    "EQUAL": lambda left, right: int(left == right),
    "FLOOR_DIV": operator.floordiv,
    "CEIL_DIV": lambda left, right: -(-left // right),
}


class Expression:
    """An integer that may depend on sizes known later."""

    def __init__(self, evaluate: Callable[[dict[str, int]], int], value: int | None = None) -> None:
        self.evaluate = evaluate
        self.value = value

    def is_constant(self) -> bool:
        """Whether it is a number."""
        return self.value is not None

    def get_constant_value(self) -> int | None:
        """The number."""
        return self.value


class Builder:
    """Makes expressions."""

    def constant(self, value: int) -> Expression:
        """A number."""
        return Expression(lambda _: value, value)

    def operation(self, kind: Any, left: Expression, right: Expression) -> Expression:
        """A number made of two."""
        compute = OPERATIONS[kind.name]
        known = left.is_constant() and right.is_constant()
        value = compute(left.value, right.value) if known else None
        return Expression(lambda sizes: compute(left.evaluate(sizes), right.evaluate(sizes)), value)


class Scalars(list):
    """Takes the numbers that a kernel is passed."""

    nbSymExprs = 0  # noqa: N815 - NVIDIA's name

    def __setitem__(self, index: int, value: Any) -> None:
        assert index == len(self) < self.nbSymExprs
        self.append(value)


def stand_in(folder: Path) -> types.ModuleType:
    """A module `tensorrt` with what the package asks for."""
    module = types.ModuleType("tensorrt")
    module.__path__ = [str(folder)]
    module.__version__ = "stand-in"
    names = [name for name in dir(tensorrt_rtx) if not name.startswith("__")]
    module.__dict__.update({name: getattr(tensorrt_rtx, name) for name in names})
    requests = "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT"
    module.QuickPluginCreationRequest = enum.Enum("QuickPluginCreationRequest", requests)
    module.IPluginV3QuickAOTBuild = type("IPluginV3QuickAOTBuild", (), {})
    module.ISymExpr = type("ISymExpr", (), {})
    module.IDimensionExpr = Expression
    module.DimsExprs = lambda length: [None] * length
    return module


def main() -> None:
    """Register, create, shape, and ask for the kernel and its launch."""
    trt = stand_in(Path(sys.argv[1]))
    sys.modules["tensorrt"] = trt
    registered = trt_quick_plugin.register_quick_plugins(trt, compute_capability=90)
    package = importlib.import_module("tensorrt.plugin")
    assert sorted(package._lib.QDP_REGISTRY) == sorted(registered)
    print(json.dumps({plugin: follow(trt, plugin) for plugin in registered}))  # noqa: T201


def follow(trt: Any, plugin_id: str) -> dict[str, Any]:
    """What TensorRT would hear of one plugin."""
    namespace, name = plugin_id.split("::")
    creator = trt.get_plugin_registry().get_creator(name, "1", namespace)
    keys = 18 if name == "PartialGlobalAttention" else 8
    attributes = ATTRIBUTES | ({"window": 0} if name == "BlockDiagonalAttention" else {})
    memory = [
        np.array([value], np.float32 if isinstance(value, float) else np.int32)
        for value in attributes.values()
    ]
    kinds = [
        trt.PluginFieldType.FLOAT32 if isinstance(value, float) else trt.PluginFieldType.INT32
        for value in attributes.values()
    ]
    fields = [trt.PluginField(*given) for given in zip(attributes, memory, kinds, strict=True)]
    plugin = creator.create_plugin(
        name,
        namespace,
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    builder = Builder()
    shapes = [
        [Expression(lambda sizes, key=key: sizes[key]), builder.constant(tokens), builder.constant(32)]
        for key, tokens in (("query", 8), ("key", keys), ("key", keys))
    ]
    types_ = plugin.get_output_data_types([trt.float16] * 3, [3, 3, 3])
    (output,) = plugin.get_output_shapes(shapes, [], builder)
    inputs = [dynamic(trt, (-1, tokens, 32)) for tokens in (8, keys, keys)]
    outputs = [dynamic(trt, (-1, 8, 32))]
    formats = plugin.get_supported_format_combinations([*inputs, *outputs], 3)
    plugin.configure_plugin(inputs, outputs)
    plugin.set_tactic(0)
    launch, scalars = types.SimpleNamespace(), Scalars()
    plugin.get_launch_params(shapes, [*inputs, *outputs], 3, launch, scalars, builder)
    kernel, ptx = plugin.get_kernel([tensor.desc for tensor in inputs], [tensor.desc for tensor in outputs])
    batches = [{"query": query, "key": key} for query, key in ((1, 1), (1, 5), (5, 5))]

    def number(symbol: Any, sizes: dict[str, int]) -> int:
        return symbol.expr.evaluate(sizes)

    return {
        "types": [type_.name for type_ in types_],
        "formats": [(desc.type.name, desc.format.name) for desc in formats],
        "output": [[size.evaluate(sizes) for size in output] for sizes in batches],
        "kernel": kernel,
        "parameters": declared_parameters(ptx.decode(), kernel),
        "grid": [
            [number(axis, sizes) for axis in (launch.grid_x, launch.grid_y, launch.grid_z)]
            for sizes in batches
        ],
        "block": [number(axis, {}) for axis in (launch.block_x, launch.block_y, launch.block_z)],
        "shared": number(launch.shared_mem, {}),
        "step": [[number(scalar, sizes) for scalar in scalars] for sizes in batches],
        "scalar_types": [scalar.dtype.name for scalar in scalars],
    }


def dynamic(trt: Any, dims: tuple[int, ...]) -> Any:
    """A tensor whose batch is not known yet."""
    result = trt.DynamicPluginTensorDesc()
    result.desc = trt.PluginTensorDesc()
    result.desc.dims, result.desc.type, result.desc.format = (
        trt.Dims(dims),
        trt.float16,
        trt.TensorFormat.LINEAR,
    )
    result.opt = trt.Dims([4 if size < 0 else size for size in dims])
    return result


if __name__ == "__main__":
    main()
