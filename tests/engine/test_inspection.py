"""The kernels of an engine held against what was asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from engine.inspection_samples import MLP, QUERY, quantized_variant

from pargo_export.engine.inspection import (
    NetworkReport,
    _hold,
    explain,
    inspect_engine,
    judge_kernels,
)
from pargo_export.engine.inspection_layers import Kernel
from pargo_export.engine.inspection_network import Product
from pargo_export.errors import EngineError
from pargo_export.trt import Log, TensorRT

SMALL = "projector.llm_projection"
FLOPS = {MLP: 80.0, QUERY: 15.0, SMALL: 5.0}
TACTICS = {"int8": "sm80_xmma_gemm_i8f16_i8i32_f16_tn_n", "float16": "sm80_xmma_gemm_f16f16_f16f16_f16_nn"}


@pytest.fixture
def network() -> NetworkReport:
    """A network whose three linears are all in INT8."""
    variant = quantized_variant("int8", *FLOPS)
    linears = tuple(Product(f"{path}/MatMul", "int8", flops) for path, flops in FLOPS.items())
    return NetworkReport(
        variant,
        linears,
        _hold("network", variant, linears, limit=0.99, attention="decomposed", casts=(), notes=()),
    )


def gemm(path: str, precision: str = "int8", *more: str) -> Kernel:
    """Return a kernel that multiplies with the weight of `path`."""
    return Kernel(f"{path}_myl0", "gemm", (f"{path}/MatMul", *more), TACTICS[precision], (precision,))


def test_as_asked(network):
    """Every linear in a kernel of the precision asked for; what is fused around it does not matter."""
    around = Kernel("__myl_Move", "kgen", (f"{MLP}/MatMul",), "__myl_Move", ("float16",))
    built = judge_kernels([around, *map(gemm, FLOPS)], network)
    assert (built.source, built.passed, built.share) == ("inspector", True, 1.0)
    assert built.linears == {"int8": 3}
    assert built.notes == ("4 kernels listed",)


@pytest.mark.parametrize(("wrong", "passed"), [(SMALL, True), (QUERY, False)])
def test_kernels_in_another_precision(network, wrong, passed):
    """A builder may take a float kernel for a tenth of the operations, no more; it is named in both cases."""
    kernels = [gemm(path, "float16" if path == wrong else "int8") for path in FLOPS]
    built = judge_kernels(kernels, network)
    assert built.passed is passed
    assert built.share == 1 - FLOPS[wrong] / 100
    assert f"1 not in int8: {wrong} (float16)" in explain(built)


def test_opaque_regions(network):
    """What no telling kernel names is not counted as right, and does not fail."""
    region = Kernel("{ForeignNode[a...b]}", "Myelin", tuple(f"{path}/MatMul" for path in FLOPS))
    built = judge_kernels([region, gemm(MLP)], network)
    assert built.linears == {"int8": 1, "opaque": 2}
    assert (built.share, built.passed) == (0.8, True)
    assert "2 linears are in no kernel that tells its precision" in explain(built)


def test_kernels_that_disagree(network):
    """Where several kernels name a linear, the one in another precision counts."""
    built = judge_kernels([*map(gemm, FLOPS), gemm(MLP, "float16")], network)
    assert built.linears == {"int8": 2, "float16": 1}
    assert not built.passed


def test_engine_of_a_network_that_did_not_pass(network):
    """An engine cannot mend its network."""
    failed = network.built.model_copy(update={"passed": False})
    built = judge_kernels(list(map(gemm, FLOPS)), NetworkReport(network.variant, network.linears, failed))
    assert not built.passed


@pytest.mark.parametrize(("is_fused", "name"), [(True, "int8_weight_only"), (False, "opaque")])
def test_weights_alone(is_fused, name):
    """That weights stay narrow shows only where their DequantizeLinear is part of the kernel."""
    variant = quantized_variant("int8_weight_only", MLP)
    linears = (Product(f"{MLP}/MatMul", "int8_weight_only", 8.0),)
    passed = _hold("network", variant, linears, limit=0.99, attention="plugin", casts=(), notes=())
    more = (f"{MLP}.weight/DequantizeLinear",) if is_fused else ()
    built = judge_kernels([gemm(MLP, "float16", *more)], NetworkReport(variant, linears, passed))
    assert (built.linears, built.passed, built.attention) == ({name: 1}, True, "plugin")


@pytest.mark.parametrize(
    ("node", "form"),
    [("projector.layers.0.core/MatMul", "fused kernel"), ("tower.blocks.0.core/MatMul", "decomposed")],
)
def test_fused_attention(network, node, form):
    """A fused kernel of the query layers is told; one of the tower is not mistaken for it."""
    fused = Kernel("_gemm_mha_v2_myl0_52", "kgen", (node,), "_gemm_mha_v2_0x95", ("float16",))
    assert judge_kernels([fused, *map(gemm, FLOPS)], network).attention == form


def test_inspector_that_answers_nothing(network):
    """The answer of the inspector is asked for as JSON, with the context, and refused if it is none."""
    inspector = SimpleNamespace(get_engine_information={"json": "no engine"}.__getitem__)
    module = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="json"))
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    with pytest.raises(EngineError, match="begins with 'no engine'"):
        inspect_engine(TensorRT("rtx", module, Log("test")), engine, network, context="context")
    assert inspector.execution_context == "context"
