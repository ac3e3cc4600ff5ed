"""The `pargo::` nodes as quick plugins: what they tell NVIDIA's package, and what happens where it is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import onnx
import pytest

from pargo_kernels import trt_quick_plugin

PROCESS = Path(__file__).parents[1] / "quick_plugin_process.py"


def test_nodes_are_marked_once() -> None:
    """A `pargo::` node gets namespace and scale where it has none; nothing else changes."""
    node = onnx.helper.make_node
    nodes = [
        node("PartialGlobalAttention", ["q", "k", "v"], ["a"], domain="pargo", num_heads=2),
        node("BlockDiagonalAttention", ["a", "a", "a"], ["b"], domain="pargo", num_heads=2, scale=0.5),
        node("Identity", ["b"], ["c"]),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], []))
    assert trt_quick_plugin.mark_nodes(model) == 2
    assert trt_quick_plugin.mark_nodes(model) == 2
    attributes = [
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for node in model.graph.node
    ]
    assert attributes == [
        {"num_heads": 2, "plugin_namespace": b"pargo", "scale": 1.0},
        {"num_heads": 2, "plugin_namespace": b"pargo", "scale": 0.5},
        {},
    ]


def test_library_without_the_package_is_named() -> None:
    """TensorRT-RTX has no quick plugins in Python; the error says what has."""
    trt = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(
        RuntimeError, match=r"tensorrt_rtx 1\..* has no package 'plugin' .*tensorrt 10.9 or later"
    ):
        trt_quick_plugin.register_quick_plugins(trt, compute_capability=90)


def test_package_that_only_calls_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 10.6 to 10.8 have quick plugins, but none that carry a kernel."""
    trt = types.ModuleType("old_tensorrt")
    trt.__version__ = "10.7.0"
    monkeypatch.setitem(sys.modules, "old_tensorrt", trt)
    monkeypatch.setitem(sys.modules, "old_tensorrt.plugin", types.ModuleType("old_tensorrt.plugin"))
    with pytest.raises(RuntimeError, match=r"10\.7\.0 has quick plugins only with Python at run time"):
        trt_quick_plugin.register_quick_plugins(trt)


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What NVIDIA's package learns of both plugins, see `quick_plugin_process.py`."""
    pytest.importorskip("tensorrt_rtx")
    bindings = importlib.util.find_spec("tensorrt_bindings")
    if bindings is None or not bindings.submodule_search_locations:
        pytest.skip("needs NVIDIA's package: pip install --no-deps tensorrt-cu13-bindings")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, str(PROCESS), bindings.submodule_search_locations[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


KERNELS = {
    "pargo::PartialGlobalAttention": "partial_global_kernel",
    "pargo::BlockDiagonalAttention": "block_diagonal_kernel",
}


@pytest.mark.parametrize("plugin", KERNELS)
def test_types_formats_and_shapes(told: dict[str, dict[str, Any]], plugin: str) -> None:
    """The output has the type of the query and the batch of the key; tensors are contiguous."""
    assert told[plugin]["types"] == ["HALF"]
    assert told[plugin]["formats"] == [["HALF", "LINEAR"]] * 4
    assert told[plugin]["output"] == [[1, 8, 32], [5, 8, 32], [5, 8, 32]]


@pytest.mark.parametrize("plugin", KERNELS)
def test_kernel_takes_inputs_then_number_then_output(told: dict[str, dict[str, Any]], plugin: str) -> None:
    """The parameters are in TensorRT's order, and nothing follows them."""
    name = KERNELS[plugin]
    assert told[plugin]["kernel"] == name
    pointer = ".u64 .ptr .global .align 1"
    assert told[plugin]["parameters"] == [
        *(f"{pointer} {name}_param_{index}" for index in range(3)),
        f".u32 {name}_param_4",
        f"{pointer} {name}_param_3",
    ]
    assert told[plugin]["scalar_types"] == ["INT32"]


@pytest.mark.parametrize("plugin", KERNELS)
def test_launch_follows_the_batch(told: dict[str, dict[str, Any]], plugin: str) -> None:
    """Two heads for each image; the step between queries is 0 where one query serves five images."""
    assert told[plugin]["grid"] == [[2, 2, 1], [10, 2, 1], [10, 2, 1]]
    assert told[plugin]["step"] == [[8 * 32], [0], [8 * 32]]
    assert told[plugin]["block"] == [128, 1, 1]
    assert 0 < told[plugin]["shared"] <= 48 * 1024
