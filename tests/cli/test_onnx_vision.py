"""`pargo-export onnx --vision-model`."""

from __future__ import annotations

import pytest
from vit_cases import TOWERS, write_projector

from pargo_export.bundle import Bundle


@pytest.fixture(scope="module")
def projector(tmp_path_factory):
    """Return a checkpoint without a tower."""
    return write_projector(tmp_path_factory.mktemp("projector"))


def test_options_reach_the_export(run_json, projector, tmp_path):
    """Directory, layer and preprocessing have their effect."""
    result = run_json(
        *("onnx", projector, "-o", tmp_path / "bundle", "--component", "encoder", "--max-batch", 1),
        *("--vision-model", TOWERS / "clip", "--vision-layer", "-3"),
    )
    assert result["variant"]["evidence"]["passed"]
    assert result["checkpoint"]["notes"][0] == "image features: hidden_states[-3] of clip with 3 blocks"
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.preprocessing.mode == "center-crop"
    assert manifest.model.vision.vision_layer == -3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vision-model", TOWERS / "clip", "--vision-checkpoint", TOWERS / "clip"), "are two towers"),
        (("--vision-layer", "-2"), "--vision-layer needs --vision-model"),
        (("--vision-model", TOWERS / "clip", "--vision-layer", "first"), "found 'first', expected -1, -2"),
    ],
)
def test_options_that_do_not_fit(run, projector, tmp_path, arguments, message):
    """Refused before anything is read."""
    result = run("onnx", projector, "-o", tmp_path / "bundle", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
