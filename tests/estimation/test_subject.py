"""What is estimated."""

from __future__ import annotations

import json

import pytest
import torch

from pargo_export.bundle import Bundle
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.errors import BundleError, ConfigError
from pargo_export.estimation.subject import GPU_REWRITES, linear_paths, read_subject
from pargo_export.inspect.cost import estimate_cost
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.registry import TARGET_REWRITES


@pytest.mark.parametrize("name", PRESETS)
def test_the_assumed_rewrites_count_as_all_of_a_gpu_target(name):
    """Whatever an export for CUDA applies beside them changes no count."""
    assert TARGET_REWRITES["cuda"] >= GPU_REWRITES
    config = preset(name)
    for batch in (1, 3):
        tables = [
            estimate_cost(config, batch=batch, attention="fused", rewrites=rewrites).blocks
            for rewrites in (GPU_REWRITES, TARGET_REWRITES["cuda"])
        ]
        assert tables[0] == tables[1]


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("tiny")])
def test_linears_are_those_of_the_reference(name):
    """Every linear of the PyTorch reference is listed, and nothing else."""
    config = preset(name)
    with torch.device("meta"):
        model = VisualFrontEnd(config)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    expected = {path for path, module in model.named_modules() if isinstance(module, kinds)}
    assert set(linear_paths(config)) == {path for path in expected if not path.startswith("tower.head")}


def test_a_quantized_preset_follows_the_recipe():
    """The patch embedding stays in float, everything else has 8 bits; nothing has in FP16."""
    quantized = read_subject("tiny", "int8").form.quantized
    assert "tower.patch_embedding" not in quantized
    assert {"tower.blocks.0.mlp.down", "projector.llm_projection"} <= quantized
    assert read_subject("tiny", "int8-weight-only").form.quantizes_activations is False
    assert read_subject("tiny", "fp16").form.quantized == frozenset()


def test_a_bundle_contributes_its_variant(exported_bundle):
    """The variant of that precision counts, with its rewrites and attention; else what an export would write."""
    bundle = Bundle.open(exported_bundle)
    for source in (bundle, exported_bundle, str(exported_bundle)):
        subject = read_subject(source, "bf16")
        assert (subject.variant, subject.component) == ("bf16", "all")
        assert subject.form.rewrites == frozenset(bundle.manifest.variants["bf16"].rewrites)
    assert read_subject(bundle, "fp32").variant == "fp32"  # not `external`, which is the projector alone
    missing = read_subject(bundle, "fp16")
    assert (missing.variant, missing.form.rewrites) == (None, GPU_REWRITES)
    assert missing.config == bundle.manifest.model


def test_a_configuration_from_a_file(tmp_path):
    """A complete configuration as JSON, the one that a manifest holds."""
    path = tmp_path / "config.json"
    path.write_text(preset("tiny").model_dump_json())
    assert read_subject(path, "fp16").config == preset("tiny")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such bundle or file, and no preset; the presets are eva02"),
        ("{", "is not a JSON file"),
        ("[]", "expected an object with vision and projector"),
        ('{"num_query_token": 304}', "pass a bundle or a preset"),
        (json.dumps({"vision": {}, "projector": {}}), "vision.image_size: Field required"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path, content, message):
    """The message says what is wrong with the file."""
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_subject(path, "fp16")


def test_a_directory_without_a_bundle(tmp_path):
    """A directory has to be a bundle."""
    with pytest.raises(BundleError):
        read_subject(tmp_path, "fp16")
