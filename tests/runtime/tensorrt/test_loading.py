"""What is compared before an engine is deserialized, in which order, and what is said when it differs."""

from __future__ import annotations

import pytest
from bundle.samples import make_variant
from runtime.tensorrt.engines import PLAN, write_engine_bundle

from pargo_export.bundle import BatchProfile, Bundle, EngineDevice, Evidence, Limits, sha256_bytes
from pargo_export.errors import BackendError, BundleError, IntegrityError
from pargo_export.runtime.tensorrt import loading
from pargo_export.signature import Signature, TensorSpec

ELSEWHERE = EngineDevice(name="RTX 3090", compute_capability="8.6", platform="linux-x86_64")
FAILED = Evidence(stages=(), limits=Limits(), passed=False, reference="fp32")


@pytest.fixture
def events(monkeypatch):
    """Record what is compared, in order."""
    happened = []
    for name in ("find_refusal", "read_engine", "load_requirements"):
        original = getattr(loading, name)

        def spy(*arguments, name=name, original=original, **options):
            happened.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(loading, name, spy)
    return happened


def test_everything_is_compared_before_it_is_deserialized(open_engine, events):
    """The record, the file, then the plugins; host code inside an engine stays forbidden."""
    _, _, tensorrt = open_engine(prepare=lambda _, trt: setattr(trt, "events", events))
    assert events == ["find_refusal", "read_engine", "load_requirements", "deserialize"]
    assert tensorrt.settings[-1].engine_host_code_allowed is False


def test_engine_for_another_gpu_is_not_even_read(open_engine, events):
    """The reason and the command that builds it for this GPU are in the error."""
    with pytest.raises(
        BackendError, match=r"built for compute capability 8\.6.*build it again .*pargo-export trt"
    ):
        open_engine(compute_capabilities=("8.6",), device=ELSEWHERE)
    assert events == ["find_refusal"]


def test_failed_evidence_is_refused(open_engine):
    """Unless the user names the engine, which the selection decides."""
    with pytest.raises(BackendError, match="its agreement with the float32 variant failed; name fp32-sm89"):
        open_engine(evidence=FAILED)


def test_changed_engine_is_not_deserialized(open_engine, tmp_path, events):
    """An engine is code: one changed byte is found, whatever the options say."""
    bundle = write_engine_bundle(tmp_path / "bundle", {})
    bundle.file("engines/fp32-sm89.engine").write_bytes(PLAN[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"engines/fp32-sm89\.engine has sha256 .*, expected"):
        open_engine(bundle=bundle)
    bundle.file("engines/fp32-sm89.engine").unlink()
    with pytest.raises(IntegrityError, match=r"engines/fp32-sm89\.engine is missing"):
        open_engine(bundle=bundle)
    assert "load_requirements" not in events


def test_what_was_read_is_what_was_hashed(open_engine, tmp_path):
    """A file that fits the list of files, but not the record of the engine, is not loaded."""
    bundle = write_engine_bundle(tmp_path / "bundle", {})
    engine = bundle.manifest.engines["fp32-sm89"]
    other = engine.model_copy(update={"engine_sha256": sha256_bytes(b"the engine that was built")})
    manifest = bundle.manifest.model_copy(update={"engines": {engine.name: other}})
    with pytest.raises(
        IntegrityError, match="is not what engine fp32-sm89 was built as; open the bundle again"
    ):
        open_engine(bundle=Bundle(bundle.path, manifest))


def test_plugins_are_registered_before_and_kept(open_engine, monkeypatch):
    """What `load_requirements` returns lives as long as the engine."""
    kept = []

    class Plugins:
        pass

    def load_requirements(tensorrt, requirements, bundle):
        kept.append((tensorrt.flavor, requirements, bundle.path.name))
        return Plugins()

    monkeypatch.setattr(loading, "load_requirements", load_requirements)
    open_engine()
    assert kept == [("tensorrt", (), "bundle0")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "uint8"}, r"'pixels': 'INPUT uint8\[-1, 3, 28, 28\]'"),
        ({"shape": ("batch", 3, 28, 14)}, r"'pixels': 'INPUT float32\[-1, 3, 28, 14\]'"),
        ({"name": "images"}, "'images': 'INPUT"),
    ],
    ids=["dtype", "shape", "name"],
)
def test_engine_with_other_tensors_is_refused(open_engine, change, said):
    """What the engine says of its inputs is held against the manifest."""

    def change_engine(_, trt):
        signature = make_variant().signature
        spec = signature.inputs[0].model_copy(update=change)
        trt.signature = signature.model_copy(update={"inputs": (spec,)})

    with pytest.raises(BundleError, match=rf"{said}.*the manifest says .*build it again"):
        open_engine(prepare=change_engine)


def test_engine_with_other_profiles_is_refused(open_engine):
    """The batch sizes of the record are those of the engine."""
    other = (BatchProfile(min_batch=1, opt_batch=2, max_batch=2),)

    def change_engine(_, trt):
        trt.engine = trt.engine.model_copy(update={"profiles": other})

    with pytest.raises(BundleError, match=r"profiles \[\(1, 2, 2\)\], the manifest says .*\[\(1, 1, 4\)\]"):
        open_engine(prepare=change_engine)
    assert open_engine.opened[-1][0].live == {}


def test_engine_of_a_fixed_batch_is_loaded(open_engine, tmp_path):
    """A graph of one image has no dynamic axis, and its engine no profile to compare."""
    signature = Signature(
        inputs=(TensorSpec(name="pixels", dtype="float32", shape=(1, 3, 28, 28)),),
        outputs=(TensorSpec(name="visual_tokens", dtype="float32", shape=(1, 1, 16)),),
    )
    variant = make_variant(max_batch=1, signature=signature)
    one = (BatchProfile(min_batch=1, opt_batch=1, max_batch=1),)
    bundle = write_engine_bundle(tmp_path / "bundle", {"profiles": one}, variant=variant)
    runner, _, _ = open_engine(bundle=Bundle.open(bundle.path))
    runner.warm_up()
