"""What `doctor` finds, on this machine and on machines made of files."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import pargo_export
from pargo_export.bundle import EngineDevice
from pargo_export.device.gpu import detect_driver
from pargo_export.device.machine import detect_machine
from pargo_export.doctor import Driver, Gpu, diagnose
from pargo_export.doctor import tensorrt as doctor_tensorrt
from pargo_export.doctor.abilities import find_abilities
from pargo_export.doctor.packages import find_versions
from pargo_export.doctor.tensorrt import find_tensorrt, note_jetpack
from pargo_export.errors import MissingDependencyError
from pargo_export.runtime.backends import BACKENDS, Backend

NO_GPU = Driver("", "", (), "no NVIDIA driver is installed")
XEON = """processor : 0
model name : Intel(R) Xeon(R) Platinum 8481C
flags : fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_int8

processor : 1
model name : Another
"""
ORIN = """processor : 0
Features : fp asimd fphp asimdhp asimddp
"""


def _machine(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return detect_machine(root)


def _fake_driver(count=1, status=0):
    """Return what answers like libcuda, for GPUs of compute capability 8.7."""

    def store(value):
        def answer(target, *_):
            target._obj.value = value
            return 0

        return answer

    def name(buffer, *_):
        buffer.value = b"Orin"

    def attribute(target, number, _device):
        target._obj.value = {75: 8, 76: 7}[number]

    return SimpleNamespace(
        cuDriverGetVersion=store(12060),
        cuInit=lambda _flags: status,
        cuDeviceGetCount=store(count),
        cuDeviceGet=store(0),
        cuDeviceGetName=name,
        cuDeviceTotalMem_v2=store(64 * 10**9),
        cuDeviceGetAttribute=attribute,
    )


def _refuse(_flavor):
    raise MissingDependencyError("broken")


def test_this_machine():
    """The tests run somewhere: there is a processor, memory, and ONNX Runtime to run a bundle with."""
    diagnosis = diagnose()
    assert diagnosis.can_run
    assert diagnosis.machine.memory_bytes > 10**8
    assert 1 <= diagnosis.machine.cpu.num_usable_cores <= diagnosis.machine.cpu.num_logical_cores
    assert [state.flavor for state in diagnosis.tensorrt] == ["tensorrt", "rtx"]
    assert all(bool(state.version) != bool(state.reason) for state in diagnosis.tensorrt)
    assert diagnosis.packages["numpy"] == metadata.version("numpy")
    assert json.loads(json.dumps(diagnosis.to_dict()))["can_run"] is True


def test_features_of_the_processor(tmp_path):
    """The instruction sets that matter are read from the first core."""
    cpu = _machine(tmp_path, {"proc/cpuinfo": XEON}).cpu
    assert cpu.model == "Intel(R) Xeon(R) Platinum 8481C"
    assert cpu.features == (
        "avx2",
        "avx512",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_int8",
        "amx_bf16",
    )


def test_arm_features(tmp_path):
    """Arm processors name their features differently, and often have no model name."""
    cpu = _machine(tmp_path, {"proc/cpuinfo": ORIN}).cpu
    assert cpu.model == ""
    assert cpu.features == ("neon", "fp16", "dotprod")


def test_jetson(tmp_path):
    """A Jetson is recognised by its release file, and named by the device tree."""
    machine = _machine(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        },
    )
    assert machine.jetson.model == "NVIDIA Jetson AGX Orin Developer Kit"
    assert machine.jetson.l4t == "36.4.3"


def test_other_boards_are_no_jetson(tmp_path):
    """Another board with a device tree is not taken for a Jetson."""
    machine = _machine(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5\0"})
    assert machine.jetson is None


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 16_000_000_000), ("4000000000", 4_000_000_000), ("", 16_000_000_000)]
)
def test_memory_within_the_limit_of_the_container(tmp_path, limit, expected):
    """A container may use less memory than the machine has."""
    files = {"proc/meminfo": "MemTotal: 15625000 kB\nMemFree: 1 kB\n", "sys/fs/cgroup/memory.max": limit}
    assert _machine(tmp_path, files).memory_bytes == expected


def test_a_machine_that_says_nothing(tmp_path):
    """Missing files leave empty fields, not errors."""
    machine = detect_machine(tmp_path)
    assert (machine.memory_bytes, machine.jetson, machine.cpu.model, machine.cpu.features) == (
        0,
        None,
        "",
        (),
    )


def test_gpu(tmp_path):
    """Name, compute capability and memory come from the driver."""
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n")
    driver = detect_driver(_fake_driver, version)
    assert driver == Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 64 * 10**9),), "")


def test_no_driver(tmp_path):
    """A machine without the driver's library has no GPU, with the reason."""

    def load():
        return ctypes.CDLL("libthere-is-no-such-thing.so")

    assert detect_driver(load, tmp_path / "none") == NO_GPU


@pytest.mark.parametrize(
    ("fake", "problem"),
    [(_fake_driver(count=0), "CUDA_VISIBLE_DEVICES"), (_fake_driver(status=100), "returned 100")],
)
def test_driver_without_gpu(tmp_path, fake, problem):
    """A driver that shows no GPU says why."""
    driver = detect_driver(lambda: fake, tmp_path / "none")
    assert not driver.gpus
    assert problem in driver.problem


def test_every_backend_is_listed():
    """Every backend has its state, and a reason for what does not work."""
    abilities = find_abilities(NO_GPU)
    assert [ability.name for ability in abilities] == ["export", *(backend.name for backend in BACKENDS)]
    for ability in abilities:
        assert ability.ok == (not ability.reason)
        assert all(item.ok == (not item.reason) for item in ability.precisions)


@pytest.mark.parametrize(
    ("features", "note"),
    [
        (("avx2", "avx512_vnni", "amx_int8"), "int8 is computed by amx_int8"),
        (("avx2", "avx512", "avx512_vnni"), "int8 is computed by avx512_vnni"),
        (("neon", "fp16", "dotprod"), "int8 is computed by dotprod"),
        (("avx2",), "int8 gains little: this CPU has none of amx_int8, avx512_vnni"),
    ],
)
def test_speed_of_int8_depends_on_the_cpu(features, note):
    """CPU backends say which instructions multiply 8-bit integers; others have nothing to say."""
    notes = {ability.name: ability.note for ability in find_abilities(NO_GPU, features=features)}
    assert notes["onnxruntime"].startswith(note)
    assert notes["openvino"] == notes["onnxruntime"]
    assert notes["export"] == notes["onnxruntime-cuda"] == ""


def test_installed_openvino_is_listed():
    """Its version is shown as that of every other package."""
    try:
        expected = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        expected = None
    assert find_versions()["openvino"] == expected


def test_missing_packages_are_to_be_installed(monkeypatch):
    """What is missing comes with the command that installs it."""

    def version(name):
        if name in {"torch", "onnx"}:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert find_versions()["torch"] is None
    export = find_abilities(NO_GPU)[0]
    assert export.reason == "onnx, torch missing: pip install 'pargo-export[export]'"


@pytest.mark.parametrize(("capability", "ok"), [("7.5", False), ("8.0", True), ("10.0", True)])
def test_precisions_depend_on_the_gpu(capability, ok):
    """A GPU that is too old for a precision is refused by name."""
    backend = Backend(
        name="fake", device="CUDA GPU", precisions=("bfloat16",), find_obstacle=lambda: None, open=None
    )
    driver = Driver("", "12.8", (Gpu("T4", capability, 1),), "")
    support = {item.precision: item for item in find_abilities(driver, (backend,))[1].precisions}
    assert support["bfloat16"].ok is ok
    assert ok or support["bfloat16"].reason == "T4 has compute capability 7.5, bfloat16 needs 8.0"
    assert not support["fp8"].ok


@pytest.mark.parametrize(
    ("version", "l4t", "expected"),
    [
        ("10.3.0", "36.4.3", ""),
        ("10.30.0", "36.4.3", "JetPack 6.2 comes with TensorRT 10.3, found 10.30.0"),
        ("11.4.1.5", "39.2.0", "JetPack 7.2 comes with TensorRT 10.16, found 11.4.1.5"),
        ("10.3.0", "36.9.9", ""),
        ("10.3.0", "", ""),
    ],
)
def test_tensorrt_of_the_jetpack(version, l4t, expected):
    """Another TensorRT than that of the JetPack is noted; of an unknown release nothing is said."""
    assert note_jetpack(version, l4t).startswith(expected)
    assert bool(note_jetpack(version, l4t)) == bool(expected)


def test_the_tensorrt_that_is_missing_on_a_jetson(monkeypatch):
    """Where it does not load, the version that belongs to the JetPack is named."""
    monkeypatch.setattr(doctor_tensorrt, "load_tensorrt", _refuse)
    device = EngineDevice(platform="linux-aarch64", jetson="Jetson", l4t="36.4.3", jetpack="6.2")
    tensorrt, rtx = find_tensorrt(device)
    assert (tensorrt.reason, tensorrt.note) == ("broken", "JetPack 6.2 comes with TensorRT 10.3")
    assert (rtx.reason, rtx.note) == ("broken", "")


@pytest.mark.parametrize(
    ("capability", "note"),
    [("", "no GPU"), ("8.9", ""), ("9.0", "does not serve H100, compute capability 9.0")],
)
def test_rtx_and_the_gpu(capability, note):
    """TensorRT for RTX builds everywhere and runs on the GPUs that it serves."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    device = EngineDevice(name="H100", compute_capability=capability, platform="linux-x86_64")
    state = find_tensorrt(device)[1]
    assert state.reason == ""
    assert state.note.endswith(note)
    assert bool(state.note) == bool(note)


def test_base_dependencies_are_enough():
    """Without any backend or framework the diagnosis still comes, and says what to install."""
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnx", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
from pargo_export.doctor import diagnose
diagnosis = diagnose()
assert all("pip install" in state.reason for state in diagnosis.tensorrt)
print(diagnosis.can_run, *(ability.reason for ability in diagnosis.abilities), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(pargo_export.__file__).parent.parent)},
    )
    assert done.stdout.startswith("False\n")
    assert "pip install 'pargo-export[ort]'" in done.stdout
    assert "pip install 'pargo-export[openvino]'" in done.stdout
