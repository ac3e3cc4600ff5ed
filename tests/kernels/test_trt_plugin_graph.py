"""Exported graphs with the plugins in the parser and builder of TensorRT-RTX, which need no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from two_attentions import two_attentions

pytest.importorskip("tensorrt_rtx")

PROCESS = Path(__file__).parents[1] / "rtx_plugin_process.py"


def run_rtx(library_path: Path, graph: Path, *scenarios: str) -> list[dict[str, Any]]:
    """Parse a graph in each scenario, see `rtx_plugin_process.py`."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["LD_LIBRARY_PATH"] = str(library_path)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, str(PROCESS), str(graph), *scenarios]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library under the name by which the parser of TensorRT-RTX 1.7.1 opens it."""
    libraries = pytest.importorskip("tensorrt_rtx_libs")
    folder = tmp_path_factory.mktemp("rtx")
    (folder / "libtensorrt_rtx.so").symlink_to(
        next(Path(libraries.__file__).parent.glob("libtensorrt_rtx.so.*"))
    )
    return folder


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of both nodes in FP16."""
    path = tmp_path_factory.mktemp("graph") / "two.onnx"
    onnx.save(two_attentions(), path)
    return path


# Which registration, flag or change of the model puts the plugin in the place of the function's body.
SCENARIOS = {
    "": 0,
    "register": 0,
    "register,override": 2,
    "register,strip": 2,
    "register,pargo,override": 0,
    "register,pargo,mark": 2,
    "register,pargo,strip": 2,
}


@pytest.fixture(scope="module")
def parsed(library_path: Path, two_nodes: Path) -> dict[str, dict[str, Any]]:
    """The two-node graph in every scenario, and built in one."""
    names = [*SCENARIOS, "register,override,build"]
    return dict(zip(names, run_rtx(library_path, two_nodes, *names), strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_parser_takes_the_plugin_or_the_function(parsed: dict[str, dict[str, Any]], scenario: str) -> None:
    """A layer for each node, or the many layers of the bodies."""
    result = parsed[scenario]
    assert result["parsed"], result["errors"]
    assert len(result["plugins"]) == SCENARIOS[scenario]
    assert (result["layers"] == 2) is (SCENARIOS[scenario] == 2)


def test_shapes_and_types_are_inferred_and_an_engine_is_built(parsed: dict[str, dict[str, Any]]) -> None:
    """The batch is the key's, where the query has one image; the engine carries both kernels."""
    result = parsed["register,override,build"]
    assert result["plugins"] == [["cross", [-1, 8, 32], "HALF"], ["self", [-1, 8, 32], "HALF"]]
    assert result["engine"], result["errors"]
    assert result["kernels"] == ["partial_global_kernel", "block_diagonal_kernel"]


@pytest.mark.parametrize("variant", ["fp32", "bf16"])
def test_exported_bundle_becomes_an_engine_with_plugins(
    library_path: Path, exported_bundle: Path, variant: str
) -> None:
    """Every attention of an exported model is a plugin layer, none is inlined, and the engine is built."""
    graph = exported_bundle / "onnx" / f"{variant}.onnx"
    model = onnx.load(graph, load_external_data=False)
    nodes = [node.name for node in model.graph.node if node.domain == "pargo"]
    (result,) = run_rtx(library_path, graph, "register,override,build")
    assert [name for name, _, _ in result["plugins"]] == nodes
    assert len(nodes) >= 3
    assert result["engine"], result["errors"]
    assert result["kernels"] == ["partial_global_kernel", "block_diagonal_kernel"]


def test_graph_that_does_not_fit_is_refused_by_the_parser(
    library_path: Path, two_nodes: Path, tmp_path: Path
) -> None:
    """Attributes that contradict the shapes fail before anything is built."""
    model = onnx.load(two_nodes)
    window = next(attribute for attribute in model.graph.node[0].attribute if attribute.name == "window")
    window.i = 2
    onnx.save(model, tmp_path / "wrong.onnx")
    (result,) = run_rtx(library_path, tmp_path / "wrong.onnx", "register,override")
    assert not result["parsed"]
    assert any("output shape computation failed" in error for error in result["errors"])


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU to compile for")
def test_build_without_a_gpu_wants_a_target(library_path: Path, two_nodes: Path) -> None:
    """Without a target and a GPU the parser fails in order, and the process lives."""
    (result,) = run_rtx(library_path, two_nodes, "register,override,here")
    assert not result["parsed"]
    assert any("Could not create the plugin" in error for error in result["errors"])
