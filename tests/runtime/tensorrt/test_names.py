"""Every name of TensorRT and CUDA that the package uses exists, in both flavors and in the bindings."""

from __future__ import annotations

import ast
import re
from importlib import metadata
from pathlib import Path

import pytest

import pargo_export.runtime.tensorrt as package

FILES = sorted(Path(package.__file__).parent.glob("*.py"))
# Variables and attributes that hold an object of TensorRT, by the class.
RECEIVERS = {
    "trt": "",
    "trt_runtime": "Runtime",
    "trt_engine": "ICudaEngine",
    "trt_context": "IExecutionContext",
    "trt_config": "IRuntimeConfig",
    "trt_cache": "IRuntimeCache",
}
# What TensorRT for RTX alone has: it compiles kernels where an engine runs. The code asks for the first one.
RTX_ONLY = {
    ("", "CudaGraphStrategy"),
    ("", "DynamicShapesKernelSpecializationStrategy"),
    ("IRuntimeConfig", "create_runtime_cache"),
    ("IRuntimeConfig", "cuda_graph_strategy"),
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
    ("IRuntimeConfig", "set_runtime_cache"),
    ("IRuntimeCache", "deserialize"),
    ("IRuntimeCache", "serialize"),
}


def used_names() -> set[tuple[str, str]]:
    """Return class and name of everything of TensorRT that the package mentions; the class of the module is empty."""
    used = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                value = node.value
                name = value.id if isinstance(value, ast.Name) else getattr(value, "attr", "")
                if name.lstrip("_") in RECEIVERS:
                    used.add((RECEIVERS[name.lstrip("_")], node.attr))
            if isinstance(node, ast.JoinedStr) and "get_tensor_" in ast.unparse(node):
                used |= {("ICudaEngine", f"get_tensor_{what}") for what in ("mode", "dtype", "location")}
    return used


def used_functions() -> set[str]:
    """Return the names of the driver's functions and constants."""
    text = "\n".join(path.read_text() for path in FILES)
    return set(re.findall(r'"(cu[A-Z]\w+)"', text)) | set(re.findall(r"\.(CU\w+|CUstream\w+)\b", text))


def test_the_walk_finds_what_is_there():
    """A name of each class, so that the tests below do not pass for want of names."""
    assert used_names() >= {
        ("", "Runtime"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "create_execution_context"),
        ("ICudaEngine", "get_tensor_location"),
        ("IExecutionContext", "execute_async_v3"),
        ("IRuntimeConfig", "cuda_graph_strategy"),
        ("IRuntimeCache", "deserialize"),
    }
    assert used_functions() >= {"cuMemcpyAsync", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL", "CUdevice_attribute"}
    assert used_names() >= RTX_ONLY


def test_names_exist_in_tensorrt_for_rtx():
    """Asked of the installed module."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    missing = [
        (kind, name) for kind, name in used_names() if not hasattr(getattr(trt, kind) if kind else trt, name)
    ]
    assert missing == []


def test_names_exist_in_tensorrt():
    """Read from NVIDIA's type stubs, as TensorRT itself cannot be installed everywhere."""
    text = read_stubs()
    classes = dict(re.findall(r"^class (\w+)\b.*?:\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL))
    missing = set()
    for kind, name in used_names():
        found = (
            re.search(rf"^(class|def) {name}\b|^{name}\b", text, re.MULTILINE)
            if not kind
            else re.search(rf"^    (def )?{name}\b", classes.get(kind, ""), re.MULTILINE)
        )
        if not found:
            missing.add((kind, name))
    assert missing == RTX_ONLY


def test_names_exist_in_the_cuda_bindings():
    """Asked of the installed module, which needs no GPU for that."""
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    enums = [getattr(driver, name) for name in used_functions() if hasattr(driver, name)]
    missing = [
        name
        for name in used_functions()
        if not hasattr(driver, name) and not any(hasattr(enum, name) for enum in enums)
    ]
    assert missing == []


def read_stubs() -> str:
    """Return the text of tensorrt-stubs: installed, or where `make` keeps them for mypy."""
    installed = [Path(str(item.locate_file(""))) for item in metadata.distributions(name="tensorrt-stubs")]
    for folder in (Path(__file__).parents[3] / ".venv" / "stubs", *installed):
        for path in folder.glob("tensorrt_bindings*/tensorrt.pyi"):
            return path.read_text()
    return pytest.skip("tensorrt-stubs is not installed")


def test_flavors_differ_only_where_the_module_can_tell():
    """Both backends run the same code: it asks for a class that only RTX has."""
    asking = [path.name for path in FILES if '"CudaGraphStrategy")' in path.read_text()]
    assert asking == ["loading.py"]
    assert not any("flavor ==" in path.read_text() for path in FILES)
