"""On a CPU every quantized linear becomes an integer kernel of ONNX Runtime."""

from __future__ import annotations

import tempfile

import onnx
import onnx_ir as ir
import pytest
from bundle.samples import files_below

from pargo_export.bundle import Bundle
from pargo_export.errors import QuantizationError
from pargo_export.quantization.integer_kernels import count_integer_kernels
from pargo_export.quantization.quantize import quantize

PATCHES = "tower.patch_embedding"
NUM_PRODUCTS = 60  # of `int8-cpu`


def kernels_of(bundle, name):
    """Return the variant and its kernels."""
    variant = Bundle.open(bundle).variant(name)
    return variant, count_integer_kernels(bundle / variant.graph)


def test_every_quantized_linear_of_the_cpu_dialect_is_fused(quantized_bundle):
    """Nor is a pair of the tower's queries and keys left over, and only the patch embedding computes in floating point."""
    variant, found = kernels_of(quantized_bundle, "int8-cpu")
    # 35 linears, of which nine are written in 2 to 4 parts, and the scores of three tower blocks.
    assert len(variant.quantization.quantized) == 35 + 3
    assert found.integer == {"MatMulIntegerToFloat": NUM_PRODUCTS}
    assert found.leftover_qdq == 0
    assert [name.partition("/")[0] for name in found.floats] == [PATCHES]


@pytest.mark.parametrize("name", ["weights-cpu", "weights-rtx"])
def test_packed_weights_are_unpacked_by_the_kernel(quantized_bundle, name):
    """Weights alone become MatMulNBits, in float32 and float16 graphs."""
    variant, found = kernels_of(quantized_bundle, name)
    assert found.weight_only == {"MatMulNBits": len(variant.quantization.quantized)}
    assert (found.integer, found.leftover_qdq) == ({}, 0)


def test_float_graphs_have_no_integer_kernels(quantized_bundle):
    """Every linear is listed."""
    _, found = kernels_of(quantized_bundle, "fp32")
    assert (found.integer, found.weight_only, found.leftover_qdq) == ({}, {}, 0)
    assert len(found.floats) == 36
    assert sum(".mlp.down/" in name for name in found.floats) == 3


def test_pairs_that_do_not_fuse_are_counted(quantized_bundle):
    """The TensorRT dialect in float16 is computed in floating point on a CPU: every pair is left over."""
    variant, found = kernels_of(quantized_bundle, "int8-cuda")
    model = onnx.load(quantized_bundle / variant.graph)
    assert found.num_quantized == 0
    assert found.leftover_qdq == sum(node.op_type == "DequantizeLinear" for node in model.graph.node) == 70
    assert len(found.floats) == 36


def test_kept_linears_are_floats(bundle):
    """What a recipe keeps is listed by name, the rest is fused."""
    variant = quantize(bundle, keep=("*.mlp.down",), threads=1).variant
    found = count_integer_kernels(bundle / variant.graph)
    floats = {name.rpartition("/")[0] for name in found.floats if not name.startswith(PATCHES)}
    assert floats == {f"tower.blocks.{index}.mlp.down" for index in range(3)}
    assert len(variant.quantization.quantized) == 32 + 3
    assert found.num_quantized == NUM_PRODUCTS - 3


def test_nothing_is_written_but_into_a_temporary_folder(quantized_bundle, tmp_path, monkeypatch):
    """Weights beside the graph are read from there, and everything written is gone afterwards."""
    model = ir.load(quantized_bundle / "onnx/int8-cpu.onnx")
    folder, scratch = tmp_path / "graph", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    ir.save(model, folder / "beside.onnx", external_data="beside.onnx.data")
    before = files_below(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert count_integer_kernels(folder / "beside.onnx").num_quantized == NUM_PRODUCTS
    assert list(scratch.iterdir()) == []
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", ["int8-bf16", "missing"])
def test_graphs_that_do_not_open_are_refused(quantized_bundle, name):
    """With ONNX Runtime's reason."""
    with pytest.raises(QuantizationError, match="ONNX Runtime refuses the graph: "):
        count_integer_kernels(quantized_bundle / f"onnx/{name}.onnx")
