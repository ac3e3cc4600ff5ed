"""Every field that forbids loading an engine, one at a time, on machines that are described and not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from bundle.samples import ORIN, SHA256, make_engine, make_manifest, make_variant

from pargo_export.bundle import BuiltAsAsked, EngineDevice, Evidence, FileRecord, Limits, PluginRequirement
from pargo_export.trt import Log, TensorRT
from pargo_export.trt.plugins_package import package_sha256
from pargo_export.trt.preflight import find_mismatches, find_refusal, is_stale

FILES = {
    "onnx/fp32.onnx": FileRecord(sha256=SHA256, size_bytes=3, stage="graph"),
    "onnx/fp32.onnx.data": FileRecord(sha256=SHA256, size_bytes=3, stage="graph"),
    **{
        f"engines/{name}": FileRecord(sha256=SHA256, size_bytes=7, stage="engine")
        for name in ("fp32-sm87.engine", "fp32-sm87.json", "fp32-rtx.engine", "fp32-rtx.json")
    },
}
GRAPH = make_manifest(FILES, variants={"fp32": make_variant()}).graph_sha256("onnx/fp32.onnx")
DESKTOP = EngineDevice(name="RTX 4090", compute_capability="8.9", platform="linux-x86_64", driver="570.86")
RTX_ENUM = SimpleNamespace(
    __members__=dict.fromkeys(("NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120"))
)


def _tensorrt(version="10.3.0.30", flavor="tensorrt"):
    module = SimpleNamespace(__version__=version, ComputeCapability=RTX_ENUM)
    return TensorRT(flavor, module, Log("test"))


def _orin_engine(**changes):
    return make_engine(**({"graph_sha256": GRAPH} | changes))


def _rtx_engine(**changes):
    values = {
        "flavor": "rtx",
        "tensorrt_version": "1.7.1.116",
        "compute_capabilities": (),
        "device": EngineDevice(platform="linux-x86_64"),
        "graph_sha256": GRAPH,
    }
    return make_engine("fp32-rtx", **(values | changes))


def _manifest(engine):
    return make_manifest(FILES, variants={"fp32": make_variant()}, engines={engine.name: engine})


def _fields(engine, device=ORIN, tensorrt=None, manifest=None):
    tensorrt = tensorrt or _tensorrt(engine.tensorrt_version, engine.flavor)
    found = find_mismatches(engine, manifest or _manifest(engine), device=device, tensorrt=tensorrt)
    return [item.field for item in found]


def _refusal(engine, device=ORIN, tensorrt=None, **options):
    tensorrt = tensorrt or _tensorrt(engine.tensorrt_version, engine.flavor)
    return find_refusal(engine, _manifest(engine), device=device, tensorrt=tensorrt, **options)


def test_an_engine_runs_where_it_was_built():
    """Nothing is refused on the machine that built the engine."""
    assert _refusal(_orin_engine()) is None


def test_the_reason_says_found_expected_and_the_command():
    """One sentence: what built it, what is here, and the whole command to build it again."""
    engine = _orin_engine(settings={"optimization_level": 4})
    assert _refusal(engine, tensorrt=_tensorrt("10.16.1.11"), bundle="my bundle") == (
        "engine fp32-sm87: it was built by TensorRT 10.3.0.30, found TensorRT 10.16.1.11; build it again on this machine: "
        "pargo-export trt 'my bundle' --variant fp32 --flavor tensorrt --optimization-level 4"
    )


@pytest.mark.parametrize(
    ("version", "refused"), [("10.3.0.26", False), ("10.3.1.1", True), ("10.4.0.1", True), ("11.3.0.1", True)]
)
def test_versions_agree_to_the_patch(version, refused):
    """Another build of the same release may load the engine, another release may not."""
    assert _fields(_orin_engine(), tensorrt=_tensorrt(version)) == ["tensorrt_version"] * refused


@pytest.mark.parametrize(
    ("version", "refused"),
    [("10.16.1.11", False), ("11.4.1.5", False), ("10.2.0.1", True), ("12.0.0.1", True)],
)
def test_version_compatible_engines_run_in_later_versions(version, refused):
    """Built version compatible, an engine runs in later versions, from 10 to 11, never in earlier ones."""
    engine = _orin_engine(settings={"version_compatible": True})
    assert _fields(engine, tensorrt=_tensorrt(version)) == ["tensorrt_version"] * refused


def test_rtx_engines_are_never_version_compatible():
    """TensorRT for RTX loads engines of its own release only."""
    engine = _rtx_engine(settings={"version_compatible": True})
    assert _fields(engine, DESKTOP, _tensorrt("1.8.0.3", "rtx")) == ["tensorrt_version"]


def test_flavor():
    """An engine of the other TensorRT is refused, without comparing versions of different products."""
    engine = _rtx_engine()
    assert _fields(engine, DESKTOP, _tensorrt()) == ["flavor"]
    assert "not by TensorRT; open it with the backend for TensorRT for RTX" in _refusal(
        engine, DESKTOP, _tensorrt()
    )


def test_compute_capability():
    """An engine of TensorRT runs on GPUs of exactly the capability that it was built for."""
    other = ORIN.model_copy(update={"compute_capability": "11.0", "name": "Thor"})
    assert _fields(_orin_engine(), other) == ["compute_capability"]
    assert "it was built for compute capability 8.7, Thor has 11.0" in _refusal(_orin_engine(), other)


@pytest.mark.parametrize(("capability", "refused"), [("8.0", False), ("12.0", False), ("7.5", True)])
def test_hardware_compatible_engines(capability, refused):
    """Built hardware compatible on a PC, an engine runs on every GPU from 8.0 on."""
    settings = {"hardware_compatibility": "ampere_plus"}
    engine = _orin_engine(compute_capabilities=("8.9",), device=DESKTOP, settings=settings)
    device = DESKTOP.model_copy(update={"compute_capability": capability})
    assert _fields(engine, device) == ["compute_capability"] * refused


def test_no_hardware_compatibility_on_jetson():
    """The setting counts for nothing in an engine that was built on a Jetson."""
    engine = _orin_engine(settings={"hardware_compatibility": "ampere_plus"})
    assert _fields(engine, ORIN.model_copy(update={"compute_capability": "11.0"})) == ["compute_capability"]


@pytest.mark.parametrize(
    ("built_for", "capability", "refused"),
    [
        ((), "8.6", False),
        ((), "12.1", False),  # later than all that this version knows
        ((), "7.5", True),
        ((), "9.0", True),  # between two that it serves
        (("7.5", "8.6"), "7.5", False),
        (("7.5", "8.6"), "8.9", True),
        (("8.6",), "12.1", True),
    ],
)
def test_gpus_of_rtx(built_for, capability, refused):
    """With a list an engine runs on those GPUs alone; without one on all that RTX serves from 8.0 on."""
    device = DESKTOP.model_copy(update={"compute_capability": capability})
    assert _fields(_rtx_engine(compute_capabilities=built_for), device) == ["compute_capability"] * refused


def test_a_gpu_that_rtx_does_not_serve():
    """Building again with RTX would not help there, so another flavor is named instead."""
    reason = _refusal(_rtx_engine(), DESKTOP.model_copy(update={"name": "H100", "compute_capability": "9.0"}))
    assert reason.endswith(
        "H100 has 9.0; TensorRT for RTX 1.7.1.116 does not serve this GPU: build an engine with TensorRT "
        "(--flavor tensorrt)"
    )


@pytest.mark.parametrize(
    ("built_for", "capability", "expected"),
    [((), "8.6", ["precision"]), ((), "8.9", []), (("8.9",), "8.6", ["compute_capability", "precision"])],
)
def test_number_formats_of_the_gpu(built_for, capability, expected):
    """RTX builds an FP8 engine for all GPUs by default; one that has no FP8 is not helped by building it again."""
    engine = _rtx_engine(compute_capabilities=built_for)
    variants = {"fp32": make_variant(precision="fp8")}
    manifest = make_manifest(FILES, variants=variants, engines={engine.name: engine})
    device = DESKTOP.model_copy(update={"compute_capability": capability})
    assert _fields(engine, device, manifest=manifest) == expected
    reason = find_refusal(engine, manifest, device=device, tensorrt=_tensorrt("1.7.1.116", "rtx"))
    assert not expected or reason.endswith("build an engine of a variant without fp8")


def test_platform():
    """An engine of TensorRT stays on its operating system and processor; one of RTX does not."""
    windows = DESKTOP.model_copy(update={"platform": "windows-amd64"})
    engine = _orin_engine(device=DESKTOP, compute_capabilities=("8.9",))
    assert _fields(engine, windows) == ["platform"]
    assert "it was built on linux-x86_64, this machine is windows-amd64" in _refusal(engine, windows)
    assert _fields(_rtx_engine(), windows) == []


def test_no_gpu():
    """Without a GPU no engine is loaded, and no rebuild is offered that could not work either."""
    device = EngineDevice(platform="linux-aarch64", jetson="Jetson", l4t="36.4.3")
    assert _fields(_orin_engine(), device) == ["device"]
    assert "pargo-export trt" not in _refusal(_orin_engine(), device, _tensorrt("10.4.0.1"))


@pytest.mark.parametrize(
    ("l4t", "refused"), [("36.4.7", False), ("36.5.0", True), ("39.2.0", True), ("", False)]
)
def test_jetson_linux_to_the_minor_release(l4t, refused):
    """Releases of one family load each other's engines; a release that is unknown is not judged."""
    device = ORIN.model_copy(update={"l4t": l4t, "jetpack": ""})
    assert _fields(_orin_engine(), device) == ["l4t"] * refused


def test_releases_are_named():
    """The reason names both releases, with the JetPack where it is known."""
    device = ORIN.model_copy(update={"l4t": "39.9.0", "jetpack": ""})
    reason = _refusal(_orin_engine(), device)
    assert "it was built on Jetson Linux 36.4.3 (JetPack 6.2), found Jetson Linux 39.9.0" in reason


def test_jetson_and_other_machines():
    """A Jetson's engine is not for a server with the same processor and GPU, nor the reverse."""
    server = EngineDevice(name="GPU", compute_capability="8.7", platform="linux-aarch64")
    assert _fields(_orin_engine(), server) == ["l4t"]
    assert _fields(_orin_engine(device=server)) == ["l4t"]


def test_stale_graph():
    """Weights that changed under the same graph make the engine stale."""
    engine = _orin_engine()
    changed = FILES | {"onnx/fp32.onnx.data": FileRecord(sha256=SHA256[::-1], size_bytes=3, stage="graph")}
    manifest = make_manifest(changed, variants={"fp32": make_variant()}, engines={engine.name: engine})
    assert is_stale(engine, manifest)
    assert not is_stale(engine, _manifest(engine))
    assert _fields(engine, manifest=manifest) == ["graph"]


def test_missing_variant():
    """An engine whose variant is gone is refused, without a command that names the variant."""
    engine = _orin_engine(variant="gone")
    manifest = make_manifest(FILES, variants={"fp32": make_variant()})
    assert _fields(engine, manifest=manifest) == ["variant"]
    assert "--variant" not in find_refusal(engine, manifest, device=ORIN, tensorrt=_tensorrt())


@pytest.mark.parametrize("changed", [False, True])
def test_packages_of_plugins(changed):
    """The sources that an engine's plugins rely on are compared before the engine is touched."""
    sha256 = SHA256 if changed else package_sha256()
    plugin = PluginRequirement(
        operators=("pargo::PartialGlobalAttention",),
        kind="python",
        sha256=sha256,
        package="pargo_kernels 0.0.1",
    )
    engine = _orin_engine(plugins=(plugin,))
    assert _fields(engine) == ["plugins"] * changed
    assert not changed or "install pargo_kernels 0.0.1, as it was" in _refusal(engine)


def test_libraries_of_plugins_are_files_of_the_bundle():
    """They are hashed when they are loaded; there is no package to look for."""
    file = "engines/plugin.so"
    plugin = PluginRequirement(operators=("pargo::A",), kind="library", file=file, sha256=SHA256)
    engine = _orin_engine(plugins=(plugin,))
    files = FILES | {file: FileRecord(sha256=SHA256, size_bytes=7, stage="engine")}
    manifest = make_manifest(files, variants={"fp32": make_variant()}, engines={engine.name: engine})
    assert _fields(engine, manifest=manifest) == []


def test_failed_evidence_can_be_accepted():
    """An engine that failed on the device is taken only by those who name it."""
    failed = Evidence(stages=(), limits=Limits(), passed=False, reference="fp32")
    asked = _orin_engine().built_as_asked.model_dump() | {"share": 0.5, "passed": False}
    engine = _orin_engine(evidence=failed, built_as_asked=BuiltAsAsked(**asked))
    assert _fields(engine) == ["built_as_asked", "evidence"]
    assert "name fp32-sm87 to run it nevertheless" in _refusal(engine)
    assert _refusal(engine, accept_failed=True) is None


def test_all_reasons_are_given_at_once():
    """Whoever mends one reason is not met by the next."""
    engine = _orin_engine(graph_sha256=SHA256)
    reason = _refusal(engine, ORIN.model_copy(update={"l4t": "39.2.0"}), _tensorrt("10.16.1.11"))
    for part in ("TensorRT 10.16.1.11", "Jetson Linux 39.2.0", "has changed", "pargo-export trt BUNDLE"):
        assert part in reason
