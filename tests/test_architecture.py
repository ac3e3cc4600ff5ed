"""The one-way rule: who may import whom, and what must not be imported at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pargo_calibration
import pargo_export

PACKAGE = Path(pargo_export.__file__).parent
KERNELS = Path(pargo_export.__file__).parents[1] / "kernels" / "pargo_kernels"
CALIBRATION = Path(pargo_calibration.__file__).parent

BASE = {
    "__init__",
    "_version",
    "errors",
    "config",
    "signature",
    "optional",
    "overrides",
    "preprocessing",
    "bundle",
    "assets",
    "device",
    "trt",
}
CHAIN = [
    "checkpoint",
    "model",
    "rewrite",
    "graph",
    "quantization",
    "engine",
    "runtime",
    "telemetry",
    "encoding",
    "llm",
    "agreement",
    "deploy",
    "inspect",
    "estimation",
    "bench",
    "report",
    "evaluation",
    "doctor",
    "cli",
    "__main__",
]
# Beyond the chain: these read a bundle on a device, so they skip the stages that need PyTorch.
DEVICE_STAGES = {
    "engine": {"quantization.linears"},
    "runtime": set(),
    "telemetry": {"runtime"},
    "encoding": {"runtime"},
    "llm": {"checkpoint", "graph.comparison", "graph.quiet_exporter", "runtime"},
    "inspect": {"model.masks"},
    "doctor": {"runtime"},
}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "transformers", "tensorrt")
# What a device that quantizes does not have.
WITHOUT_EXPORT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnxscript", "transformers"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
"""


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
    """pargo_kernels imports PyTorch and the standard library, and Triton where kernels are written or compiled."""
    for path in KERNELS.rglob("*.py"):
        foreign = {name.partition(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
        allowed = {"triton"} if path.name.startswith(("aot_", "triton_")) else set()
        assert foreign <= {"torch", "pargo_kernels"} | allowed, path


def test_importing_the_kernels_does_not_import_triton():
    """The operations can be imported, and computed in plain PyTorch, where Triton is not installed."""
    code = "import sys, pargo_kernels; pargo_kernels.scale_bias; import pargo_kernels.products; print('triton' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_calibration_knows_nothing_of_the_toolkit():
    """pargo_calibration imports neither pargo_export nor a framework nor an engine."""
    for path in CALIBRATION.rglob("*.py"):
        found = {name.partition(".")[0] for name in imports_of(path)}
        assert not found & {"pargo_export", "pargo_kernels", *HEAVY}, path


def test_quantization_needs_no_pytorch():
    """Every module of the stage `quantization` can be imported where PyTorch cannot."""
    names = [
        f"pargo_export.quantization.{path.stem}"
        for path in sorted((PACKAGE / "quantization").glob("[!_]*.py"))
    ]
    assert "pargo_export.quantization.quantize" in names
    imports = "\n".join(f"import {name}" for name in names)
    code = f"{WITHOUT_EXPORT}{imports}\nfrom pargo_export import CalibrateOptions, QuantizeResult, calibrate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["QuantizeOptions", "calibrate", "quantize"])
def test_quantize_is_a_function_whatever_is_imported_first(first):
    """`quantize` is the function, in every order of imports."""
    code = f"from pargo_export import {first}, quantize\nquantize('nowhere')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("pargo_export.errors.BundleError: "), done.stderr


@pytest.mark.parametrize("use", ["from pargo_export import calibrate", "pargo_export.quantize('nowhere')"])
def test_missing_packages_are_named_with_their_extra(use):
    """Where onnx is not installed, the message says which extra brings it."""
    block = WITHOUT_EXPORT.replace('"torch"', '"onnx", "onnx_ir"')
    done = subprocess.run(
        [sys.executable, "-c", f"{block}import pargo_export\n{use}"],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pargo_export.errors.MissingDependencyError: pargo_export."), last
    assert "pip install 'pargo-export[quantize]'" in last


def test_only_one_backend_needs_kernels_and_pytorch():
    """Of the stage `runtime` the package `cuda` alone imports them; nothing imports it but its backend, when it opens."""
    needs = {"torch", "triton", "onnx", "onnx_ir", "pargo_kernels"}
    for path in sorted((PACKAGE / "runtime").rglob("*.py")):
        found = {name.partition(".")[0] for name in imports_of(path)}
        if (PACKAGE / "runtime" / "cuda") not in path.parents:
            assert not found & needs, path
    light = "from pargo_export.runtime.cuda import support; from pargo_export.runtime.backends import cuda"
    code = f"import sys; {light}; print([name for name in {sorted(needs)} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


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
