"""The package stands alone: what it may import, and what it shows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pargo_calibration

PACKAGE = Path(pargo_calibration.__file__).parent
ALLOWED = {
    "ml_dtypes",
    "numpy",
    "pargo_calibration",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tomli",
    "typing_extensions",
}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_are_few(path):
    """Neither the toolkit nor a framework is imported, not even inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            names = {node.module} if isinstance(node, ast.ImportFrom) and node.module else set()
        foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
        assert foreign <= ALLOWED
    assert len(path.read_text().splitlines()) <= 250


def test_optional_packages_are_not_imported():
    """Importing the package loads neither pyarrow nor ml_dtypes."""
    code = "import sys, pargo_calibration; print({'pyarrow', 'ml_dtypes'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_public_names_are_there():
    """`__all__` is complete: every name resolves, and nothing else is public but modules."""
    public = {name for name, value in vars(pargo_calibration).items() if not name.startswith("_")}
    modules = {name for name in public if f"pargo_calibration.{name}" in sys.modules}
    assert public - modules == set(pargo_calibration.__all__)
    assert len(set(pargo_calibration.__all__)) == len(pargo_calibration.__all__)
