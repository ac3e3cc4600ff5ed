"""Bundles with the towers of CLIP and SigLIP: export, verify, run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tolerances import TOLERANCES
from vit_cases import KINDS, TOWERS, load_vit, vit_bundle, vit_io

from pargo_export import Runtime, verify
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, ConfigError
from pargo_export.graph.export import export_onnx
from pargo_export.preprocessing import PictureDefaults
from pargo_export.runtime import select
from pargo_export.runtime.backends.cuda import CUDA

MODES = {"clip": "center-crop", "siglip": "resize"}


@pytest.fixture(scope="module", params=KINDS)
def bundle(request, tmp_path_factory):
    """Return a bundle of each tower in turn; do not write to it."""
    return vit_bundle(tmp_path_factory, request.param)


def test_bundle_holds_the_tower(bundle):
    """The manifest has the tower, the layer and the preprocessing of its directory; the graph passed the gate."""
    manifest = Bundle.open(bundle).manifest
    kind = manifest.model.vision.kind
    variant = manifest.variants["fp32"]
    assert variant.evidence.passed
    assert variant.evidence.stages[0].stage == "image_features"
    assert not {"half-rotation-rope", "merge-swiglu", "pad-swiglu"} & set(variant.rewrites)
    assert {"merge-qkv", "fold-softmax-scale", "merge-cross-kv", "fold-output-norm"} <= set(variant.rewrites)
    assert ("drop-class-token" in variant.rewrites) == (kind == "clip")
    assert manifest.preprocessing.mode == MODES[kind]
    assert manifest.preprocessing.std == ((0.5,) * 3 if kind == "siglip" else PictureDefaults().std)
    assert "model.safetensors" in manifest.source.files
    assert variant.signature.inputs[0].description.endswith("with the mean and std of the preprocessing.")


def test_pictures_to_visual_tokens(bundle):
    """The runtime makes of a picture what the reference makes of the pixels that `transformers` prepares."""
    kind = Bundle.open(bundle).manifest.model.vision.kind
    io, model = vit_io(kind), load_vit(bundle.parent, kind)
    with Runtime.open(bundle, backend="onnxruntime") as runtime:
        found = runtime.encode([io["pictures.0"].numpy(), io["pictures.1"].numpy()])
    expected = model(torch.cat([io["prepared.0"], io["prepared.1"]])).numpy()
    assert found.shape == (2, 12, 20)
    assert np.abs(found - expected).max() <= TOLERANCES["export-fp32"].value


def test_verify_against_checkpoint_and_directory(bundle):
    """Weights, configuration and parity are those of projector and directory; another tower is told apart."""
    kind = Bundle.open(bundle).manifest.model.vision.kind
    projector = bundle.parent / "projector.safetensors"
    report = verify(bundle, projector, vision_checkpoint=TOWERS / kind)
    assert report.passed, report.failures
    if kind == "siglip":
        report = verify(bundle, projector, vision_checkpoint=TOWERS / "clip")
        assert [check.name for check in report.failures] == ["checkpoint: configuration"]


def test_verify_takes_the_layer_of_the_bundle(tmp_path):
    """A bundle of another layer than the usual one is held against that layer."""
    model = load_vit(tmp_path, "clip", -3)
    export_onnx(model, tmp_path / "bundle", max_batch=1, component="encoder", preprocess="pad")
    assert Bundle.open(tmp_path / "bundle").manifest.preprocessing.mode == "pad"
    report = verify(
        tmp_path / "bundle", tmp_path / "projector.safetensors", vision_checkpoint=TOWERS / "clip"
    )
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("clip", {"precision": "fp16", "target": "orin", "input_kind": "uint8"}),
        ("clip", {"attention": "attention_op", "component": "encoder"}),
        ("siglip", {"precision": "bf16", "attention": "dense"}),
    ],
)
def test_other_forms_pass_the_gate(kind, choices, tmp_path):
    """Half precisions, raw pixels and every way to write the attention compute what the reference computes.

    One image: `bundle` has the dynamic batch, which takes twice as long to translate.
    """
    result = export_onnx(load_vit(tmp_path, kind), tmp_path / "bundle", max_batch=1, **choices)
    assert result.variant.evidence.passed


def test_preprocessing_that_no_mode_does(tmp_path):
    """The export is refused, unless a mode is named."""
    model = load_vit(tmp_path, "clip")
    model.pictures = PictureDefaults(mode=None, refusal="FILE asks for more")
    with pytest.raises(ConfigError, match="FILE asks for more; name a mode yourself"):
        export_onnx(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_cuda_backend_refuses_the_tower(tmp_path_factory, tmp_path):
    """Its kernels are those of EVA-02: the refusal says so before it speaks of precisions, and others run the graph."""
    bundle = Bundle.open(shutil.copytree(vit_bundle(tmp_path_factory, "clip"), tmp_path / "bundle"))
    reason = CUDA.find_model_obstacle(bundle.variant("fp32"), bundle.manifest.model)
    assert reason.startswith("its kernels are written for the EVA-02 tower, and this bundle has a clip tower")
    projector = bundle.variant("fp32").model_copy(update={"component": "projector"})
    assert CUDA.find_model_obstacle(projector, bundle.manifest.model) is None
    present = type(CUDA)(**{**vars(CUDA), "find_obstacle": lambda: None})
    (refusal,) = select(bundle, backends=(present,)).refusals
    assert refusal == f"fp32 on cuda: {reason}"
    with pytest.raises(BackendError):
        Runtime.open(bundle.path, backend="cuda")
