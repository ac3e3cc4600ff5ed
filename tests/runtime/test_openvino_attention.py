"""The attention nodes in operators of OpenVINO compute what the kernels' reference computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tolerances import TOLERANCES

from pargo_export.runtime.backends.openvino_attention import attention_extensions
from pargo_export.runtime.backends.openvino_module import require_openvino
from pargo_kernels import block_diagonal_attention, partial_global_attention

pytest.importorskip(
    "openvino.frontend", reason="openvino is not installed: pip install 'pargo-export[openvino]'"
)

HEADS, DIM = 3, 5
# Partial tokens, global tokens, image tokens.
PARTS = [(6, 2, 18), (6, 1, 6), (6, 0, 12), (1, 0, 7), (1, 3, 7), (0, 1, 13), (0, 4, 13)]
PART_IDS = [f"P{partial}_G{global_}_N{tokens}" for partial, global_, tokens in PARTS]
CROSS, OWN = "PartialGlobalAttention", "BlockDiagonalAttention"


def _compute(path, operator, feed, given, dtype=TensorProto.FLOAT):
    """Run a graph of one node, without any function body, in OpenVINO in the precision of the graph."""
    width = HEADS * DIM
    inputs = [helper.make_tensor_value_info(name, dtype, [None, None, width]) for name in feed]
    output = helper.make_tensor_value_info("output", dtype, [None, None, width])
    node = helper.make_node(operator, list(feed), ["output"], domain="pargo", **given)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("pargo", 1)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "test", inputs, [output]), opset_imports=imports), path
    )
    frontend = require_openvino("frontend").FrontEndManager().load_by_framework("onnx")
    for extension in attention_extensions():
        frontend.add_extension(extension)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = require_openvino().Core().compile_model(frontend.convert(frontend.load(path)), "CPU", settings)
    return model(feed)[0]


def _feed(parts, batch=2, query_batch=None, dtype=np.float32, *, own=False):
    generator = np.random.default_rng(9)
    queries, width = sum(parts[:2]), HEADS * DIM
    tokens = queries if own else parts[2]
    shapes = {
        "query": (query_batch or batch, queries, width),
        "key": (batch, tokens, width),
        "value": (batch, tokens, width),
    }
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def _attributes(parts, window, scale=None):
    sizes = {"num_heads": HEADS, "num_partial": parts[0], "num_global": parts[1], "window": window}
    return sizes if scale is None else sizes | {"scale": scale}


def _expected(operator, feed, given):
    tokens = [torch.from_numpy(array).double() for array in feed.values()]
    sizes = {name: given[name] for name in ("num_heads", "num_partial", "num_global")}
    sizes["scale"] = given.get("scale", 1.0)
    if operator == CROSS:
        return partial_global_attention(*tokens, **sizes).numpy()
    return block_diagonal_attention(*tokens, **sizes, partial_window=given["window"]).numpy()


def _assert_close(found, wanted, tolerance="function-float32"):
    assert found.shape == wanted.shape
    error = np.abs(found.astype(np.float64) - wanted).max()
    assert error <= TOLERANCES[tolerance].value, f"{error:.3g}"


@pytest.mark.parametrize("query_batch", [1, 3], ids=["one_query", "query_per_image"])
@pytest.mark.parametrize("scale", [None, 0.3], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("parts", PARTS, ids=PART_IDS)
def test_cross_attention(tmp_path, parts, scale, query_batch):
    """Every combination of parts and scale, with one query for the batch and with one for each image."""
    given = _attributes(parts, parts[2] // parts[0] if parts[0] else 0, scale)
    feed = _feed(parts, batch=3, query_batch=query_batch)
    _assert_close(_compute(tmp_path / "a.onnx", CROSS, feed, given), _expected(CROSS, feed, given))


@pytest.mark.parametrize("window", [0, 1, 3, 5, 99])
@pytest.mark.parametrize("scale", [None, 0.3], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("parts", PARTS, ids=PART_IDS)
def test_self_attention(tmp_path, parts, scale, window):
    """Every combination of parts and scale; a window limits the partial tokens, 0 does not."""
    given, feed = _attributes(parts, window, scale), _feed(parts, own=True)
    _assert_close(_compute(tmp_path / "a.onnx", OWN, feed, given), _expected(OWN, feed, given))


@pytest.mark.parametrize(("operator", "window"), [(CROSS, 3), (OWN, 3)])
def test_float16_stays_float16_outside(tmp_path, operator, window):
    """Types are those of the inputs, so that a float16 graph fits around the node."""
    parts = (6, 2, 18)
    feed = _feed(parts, dtype=np.float16, own=operator == OWN)
    given = _attributes(parts, window, 0.3)
    found = _compute(tmp_path / "a.onnx", operator, feed, given, TensorProto.FLOAT16)
    assert found.dtype == np.float16
    _assert_close(found, _expected(operator, feed, given), "function-float16-rounding")
