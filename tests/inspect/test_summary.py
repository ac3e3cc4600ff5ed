from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import pargo_export
from pargo_export.bundle import Bundle, Quantization
from pargo_export.errors import BundleError
from pargo_export.inspect import estimate_cost, summarize

LIGHT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnx", "onnxruntime", "torch"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
from pargo_export.inspect import mask_text, summarize
summary = summarize(sys.argv[1])
print(summary.graphs["fp32"].problem)
print(mask_text(summary.manifest.model).splitlines()[0])
"""


@pytest.fixture(scope="module")
def summary(exported_bundle):
    """Return the summary of the shared bundle."""
    return summarize(exported_bundle)


def test_geometry(summary):
    """The sizes are those of the golden case."""
    sizes = summary.geometry
    assert (sizes.input_height, sizes.input_width, sizes.num_tiles) == (84, 84, 1)
    assert (sizes.num_image_tokens, sizes.num_visual_tokens, sizes.window_size) == (36, 22, 2)


def test_nodes_are_those_of_the_graph(summary, exported_bundle):
    """Every node of the graph is counted under its operator, functions with their domain."""
    graph = onnx.load(exported_bundle / "onnx/fp32.onnx").graph
    nodes = summary.graphs["fp32"].nodes
    assert sum(nodes.values()) == len(graph.node)
    assert nodes["pargo::PartialGlobalAttention"] == 4
    assert nodes["pargo::BlockDiagonalAttention"] == 3  # the first layer is precomputed
    assert list(nodes.values()) == sorted(nodes.values(), reverse=True)


def test_size_includes_the_weights_beside_the_graph(summary, exported_bundle):
    """A graph with external data is as large as both files together."""
    files = [exported_bundle / "onnx" / name for name in ("external.onnx", "external.onnx.data")]
    assert summary.graphs["external"].size_bytes == sum(file.stat().st_size for file in files)


def test_costs_are_those_of_the_variants(summary):
    """A variant is counted in its own form, precision and component."""
    model = summary.manifest.model
    assert summary.reference == estimate_cost(model)
    assert {block.part for block in summary.graphs["external"].cost.blocks} == {"projector"}
    assert summary.graphs["bf16"].cost.element_bytes == 2
    assert summary.graphs["fp32"].cost.total().flops < summary.reference.total().flops


def test_batch(exported_bundle):
    """The costs are those of the batch that was asked for."""
    assert summarize(Bundle.open(exported_bundle), batch=4).reference.batch == 4


def test_to_dict_is_json(summary):
    """The whole summary survives JSON."""
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["graphs"]["fp32"]["nodes"] == summary.graphs["fp32"].nodes
    assert values["manifest"]["source"]["sha256"] == summary.manifest.source.sha256


def test_unreadable_graph_is_a_finding(bundle_to_edit):
    """A graph that is no ONNX leaves the rest of the summary intact."""
    path = bundle_to_edit / "onnx/fp32.onnx"
    path.write_bytes(b"\xff" * path.stat().st_size)
    graph = summarize(bundle_to_edit).graphs["fp32"]
    assert graph.nodes is None
    assert "not an ONNX graph" in graph.problem


def test_missing_bundle(tmp_path):
    """A directory without a bundle is an error."""
    with pytest.raises(BundleError, match="not a bundle"):
        summarize(tmp_path)


def test_works_without_onnx(exported_bundle):
    """On a device the nodes are not counted, with the reason, and the masks are drawn all the same."""
    root = Path(pargo_export.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIGHT, str(exported_bundle)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    problem, title = done.stdout.splitlines()
    assert "pip install 'pargo-export[export]'" in problem
    assert title.startswith("cross-attention")


@pytest.mark.parametrize(
    ("precision", "float_precision", "smaller_activations"),
    [("int8", "float16", True), ("int8_weight_only", "float32", False)],
)
def test_costs_follow_the_quantization(bundle_to_edit, precision, float_precision, smaller_activations):
    """Quantized linears count one byte a weight, everything else the float precision."""
    bundle = Bundle.open(bundle_to_edit)
    own = bundle.variant("fp32")
    made = Quantization(
        base="fp32", float_precision=float_precision, quantized=("projector.llm_projection",), recipe="mine"
    )
    variant = own.model_copy(update={"name": "mine", "precision": precision, "quantization": made})
    (bundle_to_edit / "manifest.json").write_bytes(bundle.manifest.merged(variants=[variant]).to_json())
    cost = summarize(bundle_to_edit).graphs["mine"].cost
    plain = estimate_cost(
        bundle.manifest.model,
        element_bytes=cost.element_bytes,
        attention=own.attention,
        rewrites=own.rewrites,
    )
    projector = bundle.manifest.model.projector
    num_weights = projector.hidden_size * projector.llm_hidden_size
    assert cost.element_bytes == {"float16": 2, "float32": 4}[float_precision]
    assert plain.total().weight_bytes - cost.total().weight_bytes == (cost.element_bytes - 1) * num_weights
    assert (cost.total().activation_bytes < plain.total().activation_bytes) is smaller_activations
