"""The towers of CLIP and SigLIP in 8 bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir
import pytest
from quantization.samples import write_photographs
from vit_cases import vit_bundle

from pargo_export.bundle import Bundle
from pargo_export.estimation.subject import linear_paths
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.observe import group_by_activation
from pargo_export.quantization.quantize import quantize
from pargo_export.quantization.smooth import find_norm_site


@pytest.fixture(scope="module", params=["clip", "siglip"])
def calibrated(request, tmp_path_factory):
    """Return a calibrated bundle of each tower in turn, to be written to."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "photographs").mkdir()
    path = Path(shutil.copytree(vit_bundle(tmp_path_factory, request.param), folder / "bundle"))
    options = CalibrateOptions(num_images=6, num_evaluation=2, threads=1)
    calibrate(path, write_photographs(folder / "photographs"), options)
    return path


def test_int8_for_cpus(calibrated):
    """All linears but the patch embedding have 8 bits, and queries and keys; every stage stays close."""
    variant = quantize(calibrated, precision="int8", threads=1).variant
    kind = Bundle.open(calibrated).manifest.model.vision.kind
    blocks = {"clip": 2, "siglip": 3}[kind]
    quantized = set(variant.quantization.quantized)
    for block in range(blocks):
        for part in ("attention.qkv.merged", "attention.output", "mlp.up", "mlp.down", "attention.core"):
            assert f"tower.blocks.{block}.{part}" in quantized
    assert "tower.patch_embedding" not in quantized
    assert variant.evidence.passed
    # Random weights have no outliers: what 8 bits cost is small at every stage.
    assert min(stage.mean_cosine for stage in variant.evidence.stages) > 0.99


def test_smoothing_goes_into_the_norms(calibrated):
    """In front of query, key and value and of the first product of the feed-forward there is a LayerNorm, elsewhere not."""
    bundle = Bundle.open(calibrated)
    model = ir.load(bundle.file(bundle.variant("fp32").graph))
    groups = group_by_activation(find_linears(model))
    sites = {
        path: find_norm_site(group) for path, group in groups.items() if path.startswith("tower.blocks.0.")
    }
    takes = {path for path, site in sites.items() if not isinstance(site, str)}
    assert takes == {"tower.blocks.0.attention.qkv.merged", "tower.blocks.0.mlp.up"}
    assert {path: sites[path] for path in sites.keys() - takes}.keys() == {
        "tower.blocks.0.attention.output",
        "tower.blocks.0.mlp.down",
    }


def test_estimates_know_the_linears(calibrated):
    """The paths that an estimate is made of are those of the graph, before projections are merged."""
    bundle = Bundle.open(calibrated)
    expected = {path for path in linear_paths(bundle.manifest.model) if path.startswith("tower.")}
    model = ir.load(bundle.file(bundle.variant("fp32").graph))
    found = {linear.path for linear in find_linears(model) if linear.path.startswith("tower.")}
    merged = {path for path in found if path.endswith(".qkv.merged")}
    parts = {path.replace("merged", part) for path in merged for part in ("query", "key", "value")}
    assert (found - merged) | parts == expected


def test_int8_for_tensorrt_is_built(calibrated):
    """TensorRT for RTX parses the graph with symmetric activations and builds an engine; nothing is run."""
    trt = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt_rtx is not installed; its builder is what is tested"
    )
    variant = quantize(calibrated, precision="int8", target="rtx", threads=1).variant
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parsed = parser.parse_from_file(str(calibrated / variant.graph))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    pixels = network.get_input(0)
    rest = tuple(pixels.shape)[1:]
    profile.set_shape(pixels.name, (1, *rest), (1, *rest), (2, *rest))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 0
