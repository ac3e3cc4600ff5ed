"""The baselines: they compute what the bundle computes, and are refused where they cannot."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from golden_cases import golden_case
from tolerances import TOLERANCES

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bench import baseline_export
from pargo_export.bench.baseline_onnxruntime import PlainExport
from pargo_export.bench.baselines import open_baseline, prepare_baseline
from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, BundleError, CheckpointError, ConfigError, ExportError
from pargo_export.runtime import Runtime

CHECKPOINT = golden_case("pargo_w2").checkpoint
PICTURES = [PHOTOGRAPH.read_bytes()] * 3
ON_GPU = torch.cuda.is_available()
TOLERANCE = TOLERANCES["export-fp16" if ON_GPU else "export-fp32"].value


@pytest.fixture(scope="module")
def expected(exported_bundle):
    """Return what the bundle computes of the pictures in float32."""
    with Runtime.open(exported_bundle, backend="onnxruntime", variant="fp32", threads=1) as runtime:
        return runtime.encode(PICTURES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache directory of the user for this module."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture
def in_this_process(cache, monkeypatch):
    """Export without another process, which would import PyTorch again; return the cache."""
    monkeypatch.setattr(baseline_export, "find_or_export", baseline_export._export)
    return cache


def test_eager_pytorch_computes_the_same(exported_bundle, expected):
    """Pictures to visual tokens of the float32 variant; at any batch, with facts that say what ran."""
    with open_baseline("torch", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1) as baseline:
        for count in (1, 3):
            assert np.abs(baseline.encode(PICTURES[:count]) - expected[:count]).max() <= TOLERANCE
        facts = baseline.facts
        assert (facts.name, facts.kind, facts.is_baseline, facts.backend) == ("torch", "torch", True, "torch")
        assert facts.precision == ("float16" if ON_GPU else "float32")
        assert f"PyTorch {torch.__version__}, eager" in facts.description
        assert baseline.max_batch == 4
        assert baseline.has_stages == ON_GPU
    baseline.close()
    with pytest.raises(BackendError, match="torch is closed; open it again"):
        baseline.run(np.zeros((1, 3, 84, 84), np.float32))


def test_what_pytorch_raises_is_a_backend_error(exported_bundle):
    """With the shape that failed."""
    with (
        open_baseline("torch", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1) as baseline,
        pytest.raises(BackendError, match=r"PyTorch .* failed on float32\[1, 2, 84, 84\]: .*channels"),
    ):
        baseline.run(np.zeros((1, 2, 84, 84), np.float32))


def test_failure_to_compile_is_told(exported_bundle, monkeypatch):
    """What the compiler said, not what wraps it, and what it needs."""

    class WrappedError(RuntimeError):
        inner_exception = FileNotFoundError("no g++ anywhere\nmore")

    def fail(_):
        raise WrappedError("backend='inductor' raised:")

    monkeypatch.setattr(torch, "compile", lambda _module, **_: fail)
    with pytest.raises(
        BackendError, match=r"^torch\.compile failed: no g\+\+ anywhere; it needs a C\+\+ compiler"
    ):
        open_baseline("torch-compile", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own
@pytest.mark.skipif(ON_GPU, reason="there Triton compiles")
@pytest.mark.slow
def test_missing_compiler_is_told(exported_bundle, tmp_path, monkeypatch):
    """`torch.compile` itself, on a CPU without a C++ compiler."""
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    changes = {"fx_graph_cache": False, "cpp.cxx": (str(tmp_path / "none"),)}
    with (
        config.patch(changes),
        pytest.raises(
            BackendError, match=r"^torch\.compile failed: No working C\+\+ compiler found .*; it needs a C"
        ),
    ):
        open_baseline("torch-compile", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own
@pytest.mark.slow
def test_compiled_pytorch_computes_the_same(exported_bundle, expected):
    """The same tokens through `torch.compile`, at two batch sizes."""
    with open_baseline("torch-compile", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1) as baseline:
        assert baseline.facts.kind == "torch-compile"
        for count in (1, 3):
            assert np.abs(baseline.encode(PICTURES[:count]) - expected[:count]).max() <= TOLERANCE


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA GPU")
def test_pytorch_on_a_gpu_tells_its_stages(exported_bundle, expected):
    """The same tokens; every stage takes time."""
    with open_baseline("torch", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1) as baseline:
        tokens, times = baseline.run_stages(baseline.preprocess(PICTURES))
    assert np.abs(tokens - expected).max() <= TOLERANCE
    assert min(times.host_to_device_ms, times.compute_ms, times.device_to_host_ms) > 0


@pytest.mark.skipif(ON_GPU, reason="there it tells them")
def test_stages_are_not_told_on_a_cpu(exported_bundle):
    """As of every subject without stages."""
    with (
        open_baseline("torch", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1) as baseline,
        pytest.raises(BackendError, match="torch does not tell"),
    ):
        baseline.run_stages(np.zeros((1, 3, 84, 84), np.float32))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own
def test_plain_export_computes_the_same(exported_bundle, expected, in_this_process):
    """Default session options but for the threads; the export is kept, whole, and is not the graph of the bundle."""
    made = prepare_baseline("onnxruntime", bundle=exported_bundle, checkpoint=CHECKPOINT)
    made = json.loads(json.dumps(made))  # as it comes to a worker
    with open_baseline(
        "onnxruntime", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1, **made
    ) as baseline:
        assert isinstance(baseline, PlainExport)
        for count in (1, 3):
            assert np.abs(baseline.encode(PICTURES[:count]) - expected[:count]).max() <= TOLERANCE
        facts = baseline.facts
        session = baseline._session
    assert (facts.kind, facts.precision, facts.is_baseline) == ("onnxruntime", "float32", True)
    assert facts.graph_sha256 == made["exported"]["sha256"]
    assert facts.graph_sha256 != Bundle.open(exported_bundle).manifest.graph_sha256("onnx/fp32.onnx")
    assert session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(BackendError, match="onnxruntime is closed"):
        baseline.run(np.zeros((1, 3, 84, 84), np.float32))
    (folder,) = (in_this_process / "pargo-export" / "baselines").iterdir()
    assert (folder / "model.onnx").is_file()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own
@pytest.mark.usefixtures("in_this_process")
def test_kept_export_is_used_again_unless_it_was_changed(exported_bundle, monkeypatch):
    """PyTorch exports once; one byte more, and it exports again."""
    bundle = Bundle.open(exported_bundle)
    first = baseline_export._export(bundle, CHECKPOINT)
    exports = []

    def export(_model, _arguments, path, **_):
        exports.append(path)
        path.write_bytes(b"another graph")

    monkeypatch.setattr(torch.onnx, "export", export)
    assert baseline_export._export(bundle, CHECKPOINT) == first
    assert not exports
    folder = first.path.parent
    kept = shutil.copytree(folder, folder.with_name("kept"))
    with first.path.open("ab") as file:
        file.write(b"x")
    again = baseline_export._export(bundle, CHECKPOINT)
    assert len(exports) == 1
    assert again.path.read_bytes() == b"another graph"
    assert again.sha256 != first.sha256
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, kept.name]), (
        "no leftovers"
    )
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.mark.usefixtures("in_this_process")
def test_checkpoint_of_another_model_is_refused(exported_bundle, tmp_path, monkeypatch):
    """Before anything is exported, and before anything is loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = golden_case("pargo_w4_freq2").checkpoint
    for kind in ("onnxruntime", "torch"):
        with pytest.raises(
            CheckpointError,
            match=r"pargo_w4_freq2.safetensors is not the checkpoint that bundle .* was made from",
        ):
            open_baseline(kind, bundle=exported_bundle, checkpoint=other, threads=1)
    assert prepare_baseline("torch", bundle=exported_bundle, checkpoint=other) == {}, "nothing to prepare"
    assert not list(tmp_path.iterdir())


def test_refusals_cross_the_process_boundary(exported_bundle, tmp_path):
    """What the exporting process refuses is raised in this one, as it was raised there."""
    bundle = Bundle(tmp_path / "moved", Bundle.open(exported_bundle).manifest)
    with pytest.raises(BundleError, match="moved"):
        baseline_export.find_or_export(bundle, CHECKPOINT)


@pytest.mark.slow
def test_export_by_a_process_of_its_own(exported_bundle, expected, tmp_path, monkeypatch):
    """The whole way; and a second time from the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = [prepare_baseline("onnxruntime", bundle=exported_bundle, checkpoint=CHECKPOINT) for _ in range(2)]
    assert made[0] == made[1]
    with open_baseline(
        "onnxruntime", bundle=exported_bundle, checkpoint=CHECKPOINT, threads=1, **made[0]
    ) as baseline:
        assert np.abs(baseline.encode(PICTURES) - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ("cache", ExportError, "the export cannot be kept: .*; set XDG_CACHE_HOME"),
        ("bundle", BundleError, "nowhere"),
        ("exporter", ExportError, "PyTorch could not export the model: it has no luck today"),
    ],
)
def test_what_the_exporting_process_answers(exported_bundle, tmp_path, monkeypatch, broken, error, words):
    """Every error of the package has its class and message; those of files say what to do."""

    def fail(*_, **__):
        raise torch.onnx.errors.OnnxExporterError("it has no luck today\nmore")

    home = tmp_path / "home"
    if broken == "cache":
        home.write_text("a file, no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(torch.onnx, "export", fail)
    path = "nowhere" if broken == "bundle" else exported_bundle
    monkeypatch.setattr(sys, "argv", ["baseline_export", str(path), str(CHECKPOINT)])
    answer = baseline_export._answer()
    assert answer["kind"] == error.__name__
    assert re.search(words, answer["error"]), answer["error"]


def test_export_that_dies_is_told(exported_bundle, monkeypatch):
    """Its last words and its status are in the message."""
    monkeypatch.setattr(baseline_export, "__name__", "this.is.no.module")
    with pytest.raises(ExportError, match=r"ended with status 1: .*'this.is.no.module'.*; it needs about"):
        baseline_export.find_or_export(Bundle.open(exported_bundle), CHECKPOINT)


def test_other_weights_are_refused(exported_bundle, tmp_path):
    """A checkpoint of the same architecture with another value is not the one of the bundle."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(CHECKPOINT)
    name = next(name for name in tensors if name.endswith("query_tokens"))
    tensors[name] = tensors[name] + 1
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)
    with pytest.raises(
        CheckpointError, match=r"its weights have sha256 \w{12}, those of the bundle \w{12} \(pargo_w2"
    ):
        open_baseline("torch", bundle=exported_bundle, checkpoint=other)


def test_what_is_missing_is_told(exported_bundle, tmp_path):
    """A baseline that does not exist, no checkpoint, no bundle, and a bundle of a part of the model."""
    with pytest.raises(ConfigError, match="found 'jax', expected one of torch, torch-compile, onnxruntime"):
        open_baseline("jax", bundle=exported_bundle, checkpoint=CHECKPOINT)
    with pytest.raises(
        ConfigError, match=r"found no checkpoint, expected the one .* \(--checkpoint FILE\): it runs"
    ):
        open_baseline("torch", bundle=exported_bundle, checkpoint=None)
    with pytest.raises(BundleError):
        open_baseline("torch", bundle=tmp_path, checkpoint=CHECKPOINT)
    parts = tmp_path / "parts"
    shutil.copytree(exported_bundle, parts)
    manifest = json.loads((parts / "manifest.json").read_text())
    manifest["variants"] = {"external": manifest["variants"]["external"]}
    (parts / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="found no variant of the whole model"):
        open_baseline("torch", bundle=parts, checkpoint=CHECKPOINT)
