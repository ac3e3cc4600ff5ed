"""Engines that TensorRT for RTX really builds, and what comes into the bundle with them."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path

import pytest

from pargo_export.bundle import Bundle, sha256_file
from pargo_export.engine.build import build_engine
from pargo_export.engine.options import EngineOptions, buckets
from pargo_export.errors import BundleError, ConfigError, EngineError, IntegrityError
from pargo_export.trt.sidecar import check_sidecar

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def shown():
    """Return what the build of `built` showed: its steps, and what `advance` was called with."""
    return [], []


@pytest.fixture(scope="module")
def built(engine_bundle, tmp_path_factory, shown) -> Path:
    """A bundle with the engine `fp16-rtx-sm86`; do not write to it."""
    path = Path(shutil.copytree(engine_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    steps, seen = shown
    build_engine(
        path,
        "fp16",
        capabilities=("8.6",),
        profiles=buckets((1, 2)),
        progress=steps.append,
        advance=lambda *values: seen.append(values),
    )
    return path


@pytest.fixture
def with_engine(built, tmp_path) -> Path:
    """A copy of `built`, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "bundle"))


def content(bundle):
    """Return every file of a bundle with its hash."""
    return {str(path): sha256_file(path) for path in sorted(bundle.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "linears", "attention"),
    [
        ("fp32", {"float32"}, "fused"),
        ("op", {"float32"}, "attention_op"),
        ("dense", {"float32"}, "dense"),
        ("bf16", {"bfloat16"}, "fused"),
        ("int8", {"int8", "float16"}, "fused"),
        ("weights", {"int8_weight_only", "float16"}, "fused"),
        ("fp8", {"fp8", "float16"}, "fused"),
    ],
)
def test_engines_are_built_in_every_precision_and_form(bundle, name, linears, attention):
    """The typed network has the precision that was asked for, in every linear."""
    engine = build_engine(bundle, name, flavor="rtx").engine
    assert set(engine.built_as_asked.linears) == linears
    assert (engine.built_as_asked.passed, engine.built_as_asked.share) == (True, 1.0)
    assert engine.attention == attention
    assert engine.size_bytes == (bundle / engine.file).stat().st_size > 0
    assert sha256_file(bundle / engine.file) == engine.engine_sha256


def test_the_record_says_all_that_decides_loading(built):
    """In the manifest and in the sidecar beside the engine."""
    bundle = Bundle.open(built)
    engine = bundle.manifest.engines["fp16-rtx-sm86"]
    assert (engine.file, engine.sidecar) == ("engines/fp16-rtx-sm86.engine", "engines/fp16-rtx-sm86.json")
    assert (engine.flavor, engine.compute_capabilities) == ("rtx", ("8.6",))
    assert [str(profile) for profile in engine.profiles] == ["1-1-1", "2-2-2"]
    assert engine.graph_sha256 == bundle.manifest.graph_sha256("onnx/fp16.onnx")
    assert engine.tensorrt_version == bundle.manifest.tools["tensorrt_rtx"]
    assert engine.build_seconds > 0
    assert engine.peak_memory_bytes > 10 << 20
    assert (engine.evidence, engine.timing) == (None, None)
    check_sidecar(bundle, engine)
    assert all(item.ok for item in bundle.verify())
    assert bundle.manifest.files[engine.file].parents == ("onnx/fp16.onnx",)


def test_an_engine_that_is_up_to_date_is_used_again(with_engine):
    """Nothing is built or written, however often it is asked for."""
    before = content(with_engine)
    result = build_engine(with_engine, "fp16", EngineOptions(capabilities=("8.6",)), profiles=buckets((1, 2)))
    assert result.reused
    assert content(with_engine) == before


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"profiles": buckets((1, 4))}, r"batches 1-1-1, 2-2-2"),
        ({"optimization_level": 1}, r"optimization_level by default"),
        ({"workspace_bytes": 1 << 30}, r"workspace_bytes by default"),
        ({"capabilities": ("8.9",), "name": "fp16-rtx-sm86"}, r"compute capability 8\.6"),
    ],
)
def test_other_settings_need_another_name_or_force(with_engine, change, found):
    """An engine is not lost by accident."""
    before = content(with_engine)
    with pytest.raises(EngineError, match=rf"built otherwise \({found}\).*--name.*--force"):
        build_engine(
            with_engine, "fp16", **({"capabilities": ("8.6",), "profiles": buckets((1, 2))} | change)
        )
    assert content(with_engine) == before


def test_another_variant_does_not_take_the_name_of_an_engine(with_engine):
    """Unless it is forced to."""
    with pytest.raises(EngineError, match=r"built otherwise \(variant fp16"):
        build_engine(
            with_engine, "fp32", capabilities=("8.6",), profiles=buckets((1, 2)), name="fp16-rtx-sm86"
        )
    engine = build_engine(with_engine, "fp32", name="fp16-rtx-sm86", force=True).engine
    assert engine.variant == "fp32"
    assert Bundle.open(with_engine).manifest.engines == {"fp16-rtx-sm86": engine}


def test_a_stale_engine_is_built_anew_and_leaves_no_file(with_engine):
    """For a changed graph no force is needed; what the old engine alone needed goes."""
    manifest = json.loads((with_engine / "manifest.json").read_text())
    old = manifest["engines"]["fp16-rtx-sm86"]
    extra = with_engine / "engines/plugins/old.so"
    extra.parent.mkdir()
    extra.write_bytes(b"old")
    record = {"sha256": sha256_file(extra), "size_bytes": 3, "stage": "engine", "parents": []}
    manifest["files"]["engines/plugins/old.so"] = record
    old["plugins"] = [
        {"operators": ["a"], "kind": "library", "file": "engines/plugins/old.so", "sha256": record["sha256"]}
    ]
    old["graph_sha256"] = old["recipe_sha256"] = "0" * 64
    (with_engine / "manifest.json").write_text(json.dumps(manifest))
    result = build_engine(with_engine, "fp16", capabilities=("8.6",), profiles=buckets((1, 2)))
    assert not result.reused
    assert result.engine.recipe_sha256 != "0" * 64
    assert not extra.exists()
    assert all(item.ok for item in result.bundle.verify())


@pytest.mark.usefixtures("built")
def test_progress_rises_to_the_end(shown):
    """Steps are announced in their order, and the bar ends full."""
    steps, seen = shown
    assert [step.split()[0] for step in steps] == ["checking", "parsing", "building", "inspecting", "writing"]
    assert seen == sorted(set(seen))
    assert len(seen) > 100
    assert seen[-1][0] == seen[-1][1]


def test_a_build_can_be_cancelled_from_another_thread(bundle):
    """TensorRT itself stops; the bundle is as it was."""
    before, cancel, seen = content(bundle), threading.Event(), []

    def advance(done, total):
        seen.append(done / total)
        if done > 0.1 * total:
            threading.Thread(target=cancel.set).start()

    with pytest.raises(EngineError, match="variant 'fp16' was cancelled; the bundle is as it was"):
        build_engine(bundle, "fp16", advance=advance, cancel=cancel)
    assert content(bundle) == before
    assert max(seen) < 0.9


def test_a_cancelled_build_does_not_begin(bundle):
    """An event that is set before anything is done is obeyed."""
    cancel, seen = threading.Event(), []
    cancel.set()
    with pytest.raises(EngineError, match="cancelled"):
        build_engine(bundle, "fp16", progress=seen.append, cancel=cancel)
    assert seen == []


def test_ctrl_c_ends_a_build_cleanly(bundle):
    """The process survives, the interrupt arrives, and nothing was written."""
    before = content(bundle)

    def advance(done, total):
        if done > 0.1 * total:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, "fp16", advance=advance)
    assert content(bundle) == before


def test_what_a_progress_bar_raises_ends_the_build(bundle):
    """The error comes out as it is."""

    def advance(_done, _total):
        raise RuntimeError("the bar broke")

    with pytest.raises(RuntimeError, match="the bar broke"):
        build_engine(bundle, "fp16", advance=advance)


def test_too_little_workspace_is_explained(bundle):
    """TensorRT's words, the setting, and what to do; nothing is written."""
    before = content(bundle)
    expected = r"no engine of variant 'fp32'.*workspace 0 MiB.*within workspace limit.*; allow more workspace"
    with pytest.raises(EngineError, match=expected):
        build_engine(bundle, "fp32", workspace_bytes=1)
    assert content(bundle) == before


def test_formats_that_a_gpu_lacks_are_refused_before_the_build(bundle):
    """FP8 for Ampere fails at once, not after minutes."""
    steps = []
    with pytest.raises(EngineError, match=r"FP8, which compute capability 8\.6 does not have"):
        build_engine(bundle, "fp8", capabilities=("8.6",), progress=steps.append)
    assert steps == []


def test_a_graph_that_was_changed_is_not_built(bundle):
    """Its hash is compared before it is parsed."""
    path = bundle / "onnx/fp16.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"onnx/fp16\.onnx"):
        build_engine(bundle, "fp16")


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(bundle):
    """A variant that was exported again since the bundle was opened is not what would be recorded."""
    opened = Bundle.open(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    record = manifest["files"]["onnx/fp16.onnx"]
    record["stage"] = "another"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="changed meanwhile"):
        build_engine(opened, "fp16")


def test_what_is_not_there_is_said(bundle, tmp_path):
    """Unknown options, variants and bundles."""
    with pytest.raises(ConfigError, match=r"unknown engine option speed; known: .*flavor"):
        build_engine(bundle, "fp16", speed="fast")
    with pytest.raises(BundleError, match="there is no variant 'x'"):
        build_engine(bundle, "x")
    with pytest.raises(BundleError):
        build_engine(tmp_path / "nothing")
