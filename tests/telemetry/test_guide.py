"""docs/embedding.md: its Python is valid, and what it imports is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import pargo_export

GUIDE = (Path(pargo_export.__file__).parents[1] / "docs" / "embedding.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_there_are_blocks_to_check():
    """The pattern finds them."""
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS)
def test_python_of_the_guide_imports_what_exists(block):
    """Every imported name, and every function of a module of this package that is called."""
    names = {}
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):  # a module that nothing imported yet
                    importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.name] = getattr(module, alias.name)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            assert hasattr(names[node.value.id], node.attr), ast.unparse(node)
