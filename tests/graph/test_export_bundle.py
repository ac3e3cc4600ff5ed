"""What an export does to a bundle: add, replace, reuse, or leave it alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph.exports import run, source_model
from PIL import Image
from rewrite.random_models import random_images
from shared_exports import MAX_BATCH
from tolerances import TOLERANCES

from pargo_export.bundle import Bundle
from pargo_export.errors import BundleError, ConfigError, ExportError, ParityError
from pargo_export.graph import export as export_module
from pargo_export.graph import save
from pargo_export.graph.export import export_onnx
from pargo_export.graph.options import ExportOptions
from pargo_export.rewrite.rewrite import Rewrite, set_parameter


def contents(folder):
    """Return every file with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wrong_rewrite(stage="output"):
    """Return a rewrite that is not exact."""

    def apply(model):
        projector = model.projector
        layer = projector.llm_projection if stage == "output" else projector.layers[0].feed_forward.up
        set_parameter(layer, "weight", layer.weight * 1.5)
        return 1

    return Rewrite(name="wrong", summary="wrong", why_exact="it is not", apply=apply, acts_on="projector")


def add_rewrite(monkeypatch, rewrite):
    """Let every export run one more rewrite."""
    select = export_module.select_rewrites
    monkeypatch.setattr(export_module, "select_rewrites", lambda *a, **k: [*select(*a, **k), rewrite])


def forbid_translation(monkeypatch):
    """Let every export that gets as far as the exporter fail."""

    def fail(*_args, **_kwargs):
        raise AssertionError("translated")

    monkeypatch.setattr(export_module, "translate", fail)


STATIC = ExportOptions(max_batch=1)  # translated in half the time of a dynamic batch


@pytest.fixture(scope="module")
def made(exported):
    """Return a bundle of the smallest model with the variant fp32 of one image; do not write to it."""
    return exported("micro", max_batch=1).result.bundle.path


@pytest.fixture
def bundle(made, tmp_path):
    """Return a copy of the bundle."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def test_the_same_export_is_reused(bundle, monkeypatch):
    """Nothing is translated or written, and the result says so."""
    before = contents(bundle)
    forbid_translation(monkeypatch)
    steps = []
    result = export_onnx(source_model("micro"), bundle, STATIC, progress=steps.append)
    assert result.reused
    assert result.rewrites == ()
    assert result.variant == Bundle.open(bundle).manifest.variants["fp32"]
    assert contents(bundle) == before
    assert steps == ["hashing weights"]


def test_a_damaged_graph_is_made_again(bundle):
    """A file that is not what the manifest says is not handed on, and comes back the same to the last byte."""
    graph = bundle / "onnx/fp32.onnx"
    before = graph.read_bytes()
    graph.write_bytes(before[:-1] + b"x")
    steps = []
    assert not export_onnx(source_model("micro"), bundle, STATIC, progress=steps.append).reused
    assert graph.read_bytes() == before
    assert steps[0] == "hashing weights"
    assert len(steps) > 4


def test_another_process_gives_the_same_bytes(exported, tmp_path):
    """The order of hashing, which differs from process to process, decides nothing."""
    code = (
        "import sys; from graph.exports import run, source_model; from pargo_export.graph.export import export_onnx; "
        "import torch; torch.set_num_threads(1); export_onnx(source_model('micro'), sys.argv[1], max_batch=int(sys.argv[2]))"
    )
    folders = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(folders)}
    arguments = [str(tmp_path / "other"), str(MAX_BATCH)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment)
    digests = [
        hashlib.sha256(graph.read_bytes()).hexdigest()
        for graph in (exported("micro").path, tmp_path / "other" / "onnx/fp32.onnx")
    ]
    assert digests[0] == digests[1]


def test_a_changed_option_replaces_the_variant(bundle):
    """Another recipe under the same name is made anew: here the smallest dynamic batch that there is."""
    result = export_onnx(source_model("micro"), bundle, max_batch=2)
    assert not result.reused
    variants = Bundle.open(bundle).manifest.variants
    assert list(variants) == ["fp32"]
    assert variants["fp32"].max_batch == 2
    assert {item.batch for item in result.variant.evidence.stages} == {1, 2}
    for batch in (1, 2):
        images = random_images(source_model("micro").config, batch)
        found = run(bundle / "onnx/fp32.onnx", images.numpy())[0]
        error = np.abs(found - source_model("micro")(images).numpy()).max()
        assert error <= TOLERANCES["export-fp32"].value


def test_a_second_variant_stands_beside_the_first(bundle):
    """The first keeps its bytes and its record."""
    before = (bundle / "onnx/fp32.onnx").read_bytes()
    record = Bundle.open(bundle).manifest.variants["fp32"]
    result = export_onnx(source_model("micro"), bundle, STATIC, component="projector", name="tail")
    variants = Bundle.open(bundle).manifest.variants
    assert set(variants) == {"fp32", "tail"}
    assert variants["fp32"] == record
    assert result.variant.graph == "onnx/tail.onnx"
    assert (bundle / "onnx/fp32.onnx").read_bytes() == before


def test_external_weights_come_and_go_with_their_graph(bundle, monkeypatch):
    """A variant that no longer needs a weights file leaves none behind."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 0)
    export_onnx(source_model("micro"), bundle, STATIC, force=True)
    opened = Bundle.open(bundle)
    assert set(opened.manifest.files) == {"onnx/fp32.onnx", "onnx/fp32.onnx.data"}
    assert (bundle / "onnx/fp32.onnx.data").is_file()
    images = random_images(source_model("micro").config, 1)
    found = run(bundle / "onnx/fp32.onnx", images.numpy())[0]
    error = np.abs(found - source_model("micro")(images).numpy()).max()
    assert error <= TOLERANCES["export-fp32"].value
    monkeypatch.undo()
    export_onnx(source_model("micro"), bundle, STATIC, force=True)
    assert set(Bundle.open(bundle).manifest.files) == {"onnx/fp32.onnx"}
    assert not (bundle / "onnx/fp32.onnx.data").exists()


@pytest.mark.parametrize(("stage", "named"), [("output", "visual_tokens"), ("first_layer", "query_layer_0")])
def test_failed_parity_leaves_no_new_bundle(tmp_path, monkeypatch, stage, named):
    """A rewrite that is not exact is caught, its stage is named, and nothing is left of the attempt."""
    add_rewrite(monkeypatch, wrong_rewrite(stage))
    with pytest.raises(ParityError, match=named) as info:
        export_onnx(source_model("micro"), tmp_path / "bundle", STATIC)
    assert ("query_layer_0" in str(info.value)) == (stage == "first_layer")
    assert list(tmp_path.iterdir()) == []


def test_failed_parity_leaves_an_existing_bundle_as_it_was(bundle, monkeypatch):
    """Byte for byte, though the failing variant would replace a good one."""
    before = contents(bundle)
    add_rewrite(monkeypatch, wrong_rewrite())
    with pytest.raises(ParityError, match="visual_tokens"):
        export_onnx(source_model("micro"), bundle, STATIC)
    assert contents(bundle) == before
    Bundle.open(bundle).check("onnx/fp32.onnx")


def test_an_exporter_failure_leaves_no_new_bundle(tmp_path, monkeypatch):
    """As little as failed parity does."""

    def fail(*_args, **_kwargs):
        raise ExportError("no")

    monkeypatch.setattr(export_module, "translate", fail)
    with pytest.raises(ExportError, match="no"):
        export_onnx(source_model("micro"), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changed", ["weights", "architecture or tiles", "preprocessing"])
def test_another_model_is_refused(bundle, monkeypatch, changed):
    """A bundle is one model's: the message names what differs and the mend, and nothing is touched."""
    before = contents(bundle)
    forbid_translation(monkeypatch)
    model, choices = source_model("micro"), {}
    if changed == "weights":
        projection = model.projector.llm_projection
        set_parameter(projection, "bias", projection.bias + 1)
    elif changed == "preprocessing":
        choices = {"preprocess": "resize"}
    else:
        model.config = model.config.with_tiles(1, 2)
        choices = {"component": "projector"}
    with pytest.raises(
        BundleError, match=rf"model with other .*{changed}.*; write to another directory, or .*--force"
    ):
        export_onnx(model, bundle, **choices)
    assert contents(bundle) == before


def test_force_replaces_the_whole_bundle(bundle):
    """Variants of the other model are gone with it."""
    model = source_model("micro")
    projection = model.projector.llm_projection
    set_parameter(projection, "bias", projection.bias + 1)
    export_onnx(model, bundle, STATIC, component="encoder", force=True)
    opened = Bundle.open(bundle)
    assert list(opened.manifest.variants) == ["fp32-encoder"]
    assert list(opened.manifest.files) == ["onnx/fp32-encoder.onnx"]
    assert sorted(path.name for path in (bundle / "onnx").iterdir()) == ["fp32-encoder.onnx"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"precison": "fp16"}, r"unknown export option precison; known: precision, target, attention"),
        ({"b": 1, "a": 2}, r"unknown export option a, b; known"),
        ({"precision": "int4"}, r"precision is 'int4'"),
        ({"attention": "attention_op", "opset": 20}, r"needs opset 23"),
        ({"rewrites": ("merge-all",)}, r"unknown rewrite merge-all; known"),
        ({"without_rewrites": ("merge-all",)}, r"unknown rewrite merge-all; known"),
    ],
    ids=[
        "unknown_option",
        "two_unknown_options",
        "unknown_word",
        "contradiction",
        "unknown_rewrite",
        "unknown_without",
    ],
)
def test_options_that_make_no_sense_are_refused_first(tmp_path, choices, message):
    """Before anything is hashed, run or written."""
    steps = []
    with pytest.raises(ConfigError, match=message):
        export_onnx(source_model("micro"), tmp_path / "bundle", progress=steps.append, **choices)
    assert steps == []
    assert list(tmp_path.iterdir()) == []


def test_overrides_change_given_options(bundle, monkeypatch):
    """They win over the options, which stay as they are."""
    forbid_translation(monkeypatch)
    options = ExportOptions(precision="fp16", max_batch=1)
    assert export_onnx(source_model("micro"), bundle, options, precision="fp32").reused
    assert options.precision == "float16"


def test_photographs_take_part_in_the_gate(tmp_path, monkeypatch):
    """They become cases of the reference, beside batches of noise."""
    pictures = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    measured = []

    def stop(_model, _options, _rewrites, cases, **_):
        measured.extend((case.source, len(case.values)) for case in cases)
        raise ExportError("far enough")

    monkeypatch.setattr(export_module, "_make_graph", stop)
    with pytest.raises(ExportError, match="far enough"):
        export_onnx(source_model("micro"), tmp_path / "bundle", photographs=pictures)
    assert measured == [("photograph", 1)] * 2 + [("noise", batch) for batch in (1, 2, 3, 5)]
