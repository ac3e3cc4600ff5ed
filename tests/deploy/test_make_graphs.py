"""Graphs made from a checkpoint whose tower is a vision model of `transformers`."""

from __future__ import annotations

import shutil

import pytest
from vit_cases import TOWERS, vit_bundle

from pargo_export.deploy import CheckpointOptions, deploy_engine
from pargo_export.errors import BundleError, ExportError
from pargo_export.graph import export


@pytest.fixture
def deploy(machine, tmp_path_factory, tmp_path, add_variants):
    """Return a function that deploys a projector behind CLIP for an Orin, into a bundle of the usual layer."""
    made = vit_bundle(tmp_path_factory, "clip")
    shutil.copytree(made, tmp_path / "bundle")
    add_variants(tmp_path / "bundle", fp32_orin={"target": "orin", "max_batch": 8})

    def run(output="bundle", **options):
        return deploy_engine(
            made.parent / "projector.safetensors",
            output=tmp_path / output,
            facts=machine(),
            precision="float32",
            target="orin",
            checkpoint=CheckpointOptions(vision_model=TOWERS / "clip", **options),
        )

    return run


def test_a_bundle_of_the_vision_model(deploy):
    """It is taken if layer and preprocessing are the same, and refused otherwise."""
    for options in ({}, {"vision_layer": -2}, {"preprocess": "center-crop"}):
        assert [done.step.action for done in deploy(**options).steps] == ["prepare"]
    with pytest.raises(BundleError, match="holds a model with other weights, architecture or tiles than"):
        deploy(vision_layer=-3)
    with pytest.raises(BundleError, match="holds a model with other preprocessing than"):
        deploy(preprocess="pad")


def test_the_layer_reaches_the_export(deploy, monkeypatch):
    """So does the way to prepare pictures: that of the vision model, unless another one is named."""
    found = []

    def stop(model, _bundle, options, **_):
        found.append((model.config.vision.vision_layer, options.preprocess))
        raise ExportError("stopped here")

    monkeypatch.setattr(export, "export_onnx", stop)
    for options in ({"vision_layer": -3}, {"vision_layer": "last", "preprocess": "resize"}):
        with pytest.raises(ExportError, match="stopped here"):
            deploy("another", **options)
    assert found == [(-3, "auto"), (-1, "resize")]
