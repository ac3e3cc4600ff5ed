"""The one-way rule: who may import whom, and what must not be imported at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pargo_export

PACKAGE = Path(pargo_export.__file__).parent
KERNELS = Path(pargo_export.__file__).parents[1] / "kernels" / "pargo_kernels"

BASE = {
    "__init__",
    "_version",
    "errors",
    "config",
    "signature",
    "optional",
    "preprocessing",
    "bundle",
    "assets",
}
CHAIN = ["checkpoint", "model", "rewrite", "graph", "runtime", "inspect", "doctor", "cli", "__main__"]
# Beyond the chain: these read a bundle on a device, so they skip the stages that need PyTorch.
DEVICE_STAGES = {"runtime": set(), "inspect": {"model.masks"}, "doctor": {"runtime"}}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "transformers", "tensorrt")


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def own_modules() -> list[Path]:
    """Return every module of the package but the lazy front door."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def stage_of(path: Path) -> str:
    """Return the first folder or module name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", own_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_stage_imports_only_earlier_stages_and_the_base(path):
    """Every import inside the package points to the base, the own stage or an earlier one."""
    stage = stage_of(path)
    for name in imports_of(path):
        if not name.startswith("pargo_export."):
            continue
        target = name.removeprefix("pargo_export.")
        first = target.partition(".")[0]
        if first in BASE or first == stage:
            continue
        assert stage not in BASE, f"the base imports {name}"
        allowed = DEVICE_STAGES.get(stage)
        if allowed is not None:
            assert first in allowed or target in allowed, f"{stage} imports {name}"
        else:
            assert CHAIN.index(first) < CHAIN.index(stage), f"{stage} imports {name}"


def test_kernels_know_nothing_of_the_toolkit():
    """pargo_kernels imports neither pargo_export nor anything but PyTorch and the standard library."""
    for path in KERNELS.rglob("*.py"):
        foreign = {name.partition(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        assert foreign <= {"torch", "pargo_kernels"}


def test_importing_the_package_is_light():
    """`import pargo_export` loads none of the heavy packages."""
    code = f"import sys, pargo_export; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_sorted_and_all_of_them_load():
    """`__all__` is sorted, complete and every lazy name resolves."""
    assert list(pargo_export.__all__) == sorted(pargo_export.__all__)
    for name in pargo_export.__all__:
        assert getattr(pargo_export, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pargo_export.nothing


@pytest.mark.parametrize("path", own_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_grows_without_end(path):
    """No source file is longer than 400 lines."""
    assert len(path.read_text().splitlines()) <= 400
