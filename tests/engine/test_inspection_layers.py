"""Forms of the engine inspector's JSON that others published, and what is read from them.

No engine could be loaded where these tests were written; each sample says where it was published.
"""

from __future__ import annotations

import json

import pytest

from pargo_export.engine.inspection_layers import Kernel, onnx_nodes, parse_inspector
from pargo_export.errors import EngineError

# NVIDIA/TensorRT, tools/experimental/trt-engine-explorer/tests/inputs/mobilenet.qat.onnx.engine.graph.json (8.x)
CONVOLUTION_8 = {
    "Name": "features.2.conv.2.weight + QuantizeLinear_90 + Conv_94",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {
            "Name": "399",
            "Location": "Device",
            "Dimensions": [1, 96, 56, 56],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
        }
    ],
    "Outputs": [
        {"Name": "410", "Format/Datatype": "Thirty-two wide channel vectorized row major FP16 format"}
    ],
    "Weights": {"Type": "Int8", "Count": 2304},
    "TacticName": "turing_fp16_i8816cudnn_int8_128x128_ldg16_relu_small_nt_v1",
    "TacticValue": "0x4e4e6b8f37d71713",
}
# The same file.
REFORMAT_8 = {
    "Name": "QuantizeLinear_98",
    "LayerType": "Reformat",
    "Inputs": [
        {"Name": "410", "Format/Datatype": "Thirty-two wide channel vectorized row major FP16 format"}
    ],
    "Outputs": [
        {"Name": "413", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
    ],
    "Origin": "QDQ",
}
# NVIDIA/TensorRT issue 4020 (10.1): metadata with record separators.
CONVOLUTION_10 = {
    "Name": "resnetv15_stage2_conv2_fwd + resnetv15_stage2_batchnorm2_fwd + resnetv15_stage2__plus0",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "a", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw_vect_c_32_"
    "tilesize32x64x64_stage6_warpsize2x2x1_g1_tensor16x8x32_t1r3s3",
    "StreamId": 0,
    "Metadata": "[ONNX Layer: resnetv15_stage2_conv1_fwd]\u001e[ONNX Layer: resnetv15_stage2_batchnorm1_fwd]",
}
# NVIDIA/TensorRT issue 4397 (10.x, a BERT; there in the form of one line a layer): the graph compiler's kernels.
GEMM_10 = {
    "Name": "/encoder/layers_10/pos_ff/output/MatMul_myl0_77",
    "LayerType": "gemm",
    "Inputs": [{"Name": "x", "Dimensions": [1, 40, 1024], "Format/Datatype": "Half"}],
    "Outputs": [{"Name": "y", "Dimensions": [1, 40, 256], "Format/Datatype": "Half"}],
    "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x16",
    "StreamId": 0,
    "Metadata": "[ONNX Layer: /encoder/layers.10/pos_ff/output/MatMul][ONNX Layer: /encoder/layers.10/pos_ff/output/Add]",
}
ELEMENTWISE_10 = {
    "Name": "__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_myl0_78",
    "LayerType": "kgen",
    "Inputs": [{"Name": "y", "Format/Datatype": "Half"}],
    "TacticName": "__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_0xf2543c36ff9f104bbb1655b0183afb47",
    "Metadata": "[ONNX Layer: /encoder/layers.10/pos_ff/Add_1]",
}
ATTENTION_10 = {
    "Name": "_gemm_mha_v2_myl0_52",
    "LayerType": "kgen",
    "Inputs": [{"Name": "q", "Format/Datatype": "Half"}, {"Name": "k", "Format/Datatype": "Half"}],
    "TacticName": "_gemm_mha_v2_0x957a2fe283f77dcf35c142c1390a3e6a",
    "Metadata": "[ONNX Layer: /encoder/layers.7/mha/attn/MatMul]",
}
# Issue 4020, first post: an engine built without detailed profiling.
NAME_ONLY = "resnetv15_stage1_conv0_fwd + resnetv15_stage1_batchnorm0_fwd + resnetv15_stage1_relu0_fwd"
# The name that TensorRT-RTX 1.7.1 gives to the whole of our graphs; read in a serialized engine.
REGION = {
    "Name": "{ForeignNode[graph/Cast...projector.llm_projection/Cast]}",
    "LayerType": "Myelin",
    "Inputs": [{"Name": "pixel_values", "Format/Datatype": "Row major linear FP32"}],
    "Metadata": "[ONNX Layer: graph/Cast][ONNX Layer: tower.patch_embedding/Conv]",
}


def kernel(layer) -> Kernel:
    """Return the only kernel of an engine."""
    return parse_inspector(json.dumps({"Layers": [layer], "Bindings": ["x", "y"]}))[0]


@pytest.mark.parametrize(
    ("layer", "multiplies", "precision"),
    [
        (CONVOLUTION_8, True, "int8"),
        (REFORMAT_8, False, "float16"),
        (CONVOLUTION_10, True, "int8"),
        (GEMM_10, True, "float16"),
        (ELEMENTWISE_10, False, "float16"),
        (ATTENTION_10, False, "float16"),
        (NAME_ONLY, False, None),
        (REGION, False, "float32"),
    ],
    ids=["conv 8", "reformat 8", "conv 10", "gemm 10", "kgen 10", "mha 10", "name only", "region"],
)
def test_published_layers(layer, multiplies, precision):
    """Which of them multiply with a weight, and in what."""
    found = kernel(layer)
    assert (found.multiplies, found.precision) == (multiplies, precision)


def test_regions_and_fused_attention():
    """A region whose kernels are not listed is opaque; a fused attention is told by its kernel."""
    assert kernel(REGION).is_opaque
    assert kernel(REGION).nodes == ("graph/Cast", "tower.patch_embedding/Conv")
    assert kernel(ATTENTION_10).is_attention
    assert not any(kernel(layer).is_opaque for layer in (GEMM_10, ATTENTION_10, NAME_ONLY))
    assert not any(kernel(layer).is_attention for layer in (GEMM_10, ELEMENTWISE_10, REGION))
    linear = {"Name": "tower.blocks.0.attention.output/MatMul_myl0_3", "LayerType": "gemm"}
    assert kernel(linear).multiplies  # a linear of an attention is no attention


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        # NVIDIA/Model-Optimizer issue 35
        ("sm80_xmma_gemm_i8f32_i8i32_f32_tn_n_tilesize128x128x64_stage3_warpsize2x2x1_tensor16x8x32", "int8"),
        (
            "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x128x16_stage4_warpsize2x2x1_tensor16x8x8",
            "float32",
        ),
        # NVIDIA/TransformerEngine issue 1391
        ("sm90_xmma_gemm_e4m3bf16_e4m3f32_f32_tn_n_tilesize128x128x128_warpgroupsize1x1x1", "fp8"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1", "bfloat16"),
        # the engine explorer's samples, and cuBLAS
        ("volta_int8x4_icudnn_int8x4_128x32_relu_xregs_medium_c32_nn_v1", "int8"),
        ("ampere_h16816gemm_256x128_ldg8_nn_v1", "float16"),
    ],
)
def test_names_of_kernels(tactic, precision):
    """The name of a kernel decides over the types of its inputs: it says what is multiplied."""
    assert kernel({"LayerType": "gemm", "Inputs": [], "TacticName": tactic}).precision == precision
    tensor = {"Name": "x", "Format/Datatype": "Row major linear FP32"}
    assert kernel({"LayerType": "gemm", "Inputs": [tensor], "TacticName": tactic}).precision == precision


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}, "float16"),
        ({"Format/Datatype": "Int8"}, "int8"),
        ({"Format/Datatype": "N/A due to dynamic shapes"}, None),
        # 11.x: the migration page of the inspector shows the type in a field of its own
        ({"DataType": "Float", "Format": "Row major linear FP32 format (kLINEAR)"}, "float32"),
        ({"Datatype": "BFloat16", "Format": "Row major linear"}, "bfloat16"),
        ({"Datatype": "FP8", "Format": "Row major linear"}, "fp8"),
    ],
)
def test_types_of_tensors(tensor, precision):
    """Without a telling name the type of the first input decides, in the words of 10.x and of 11.x."""
    assert kernel({"LayerType": "gemm", "Inputs": [tensor]}).precision == precision


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("", ()),
        ("[ONNX Layer: tower/Reshape]", ("tower/Reshape",)),
        ("[ONNX Layer: a/MatMul][ONNX Layer: a/Add][ONNX Layer: a/MatMul]", ("a/MatMul", "a/Add")),
        ("[ONNX Layer: a]\u001e[ONNX Layer: b]", ("a", "b")),
        # how TensorRT-RTX 1.7.1 names the body of a function
        ("[ONNX Layer: node_of_raw | layers.0.core/Attention (Attention)]", ("layers.0.core/Attention",)),
    ],
)
def test_metadata(metadata, nodes):
    """The ONNX nodes of a layer, each once, in their order."""
    assert onnx_nodes(metadata) == nodes


@pytest.mark.parametrize("text", ["", "null", "[]", '{"layers": []}', '{"Layers": {}}'])
def test_what_is_no_inspection(text):
    """Anything else is refused, and not taken for an engine without kernels."""
    with pytest.raises(EngineError, match="report it with the version of TensorRT"):
        parse_inspector(text)
