"""Plugin libraries and processes for the tests of this folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "plugin_library.cpp"
PROCESS = Path(__file__).parent / "plugin_process.py"

Compile = Callable[..., Path]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """A function that compiles C++ into a shared library: `plugin_library.cpp` with other names, or a text."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")

    def compile_library(
        name: str,
        text: str | None = None,
        *,
        cross: str = "PartialGlobalAttention",
        own: str = "BlockDiagonalAttention",
    ) -> Path:
        folder = tmp_path_factory.mktemp("library")
        source = folder / "source.cpp"
        source.write_text(SOURCE.read_text() if text is None else text)
        names = [f'-DCROSS="{cross}"', f'-DSELF="{own}"']
        path = folder / name
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", *names, "-o", str(path), str(source)]
        subprocess.run(command, check=True, timeout=120)
        return path

    return compile_library


@pytest.fixture(scope="session")
def link_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TensorRT for RTX's library under the name by which its parser opens it."""
    libraries = pytest.importorskip("tensorrt_rtx_libs")
    folder = tmp_path_factory.mktemp("rtx")
    (folder / "libtensorrt_rtx.so").symlink_to(
        next(Path(libraries.__file__).parent.glob("libtensorrt_rtx.so.*"))
    )
    return folder


@pytest.fixture(scope="session")
def run_plugins(link_folder: Path) -> Run:
    """A function that runs a scenario of `plugin_process.py` and returns what it says.

    Keywords: `library_path`, `python_path` (a folder before the others) and `prelude`, Python code that runs before.
    """

    def run(
        *arguments: object,
        library_path: Path | None = link_folder,
        python_path: Path | None = None,
        prelude: str = "",
    ) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["LD_LIBRARY_PATH"] = str(library_path or "")
        environment["PYTHONPATH"] = os.pathsep.join([str(python_path or ""), *sys.path]).strip(os.pathsep)
        start = f"{prelude}\nimport runpy; runpy.run_path({str(PROCESS)!r}, run_name='__main__')"
        command = [sys.executable, "-c", start, *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr[-3000:]
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run
