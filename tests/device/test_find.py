"""This machine as an engine sees it, on machines made of files and drivers."""

from __future__ import annotations

import platform

import pytest

from pargo_export.device.find import find_engine_device
from pargo_export.device.gpu import Driver, Gpu
from pargo_export.device.jetson import JETPACKS, find_jetpack

ORIN = Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 64 * 10**9),), "")
RELEASE = "# R36 (release), REVISION: {}, GCID: 38968081, BOARD: generic\n"


def _root(path, revision):
    (path / "etc").mkdir()
    (path / "proc/device-tree").mkdir(parents=True)
    (path / "etc/nv_tegra_release").write_text(RELEASE.format(revision))
    (path / "proc/device-tree/model").write_text("NVIDIA Jetson AGX Orin Developer Kit\0")
    return path


def test_jetson(tmp_path):
    """GPU, board, release and JetPack come together."""
    found = find_engine_device(ORIN, _root(tmp_path, "4.3"))
    assert (found.name, found.compute_capability, found.memory_bytes) == ("Orin", "8.7", 64 * 10**9)
    assert (found.driver, found.cuda) == ("540.4.0", "12.6")
    assert (found.jetson, found.l4t, found.jetpack) == (
        "NVIDIA Jetson AGX Orin Developer Kit",
        "36.4.3",
        "6.2",
    )
    assert found.platform == f"linux-{platform.machine()}"
    assert found.is_jetson
    assert str(found) == f"Orin, compute capability 8.7, {found.platform}, JetPack 6.2"


def test_an_unknown_release_is_not_guessed(tmp_path):
    """A release that the table does not have leaves the JetPack empty."""
    found = find_engine_device(ORIN, _root(tmp_path, "9.9"))
    assert (found.l4t, found.jetpack) == ("36.9.9", "")
    assert str(found).endswith("Jetson Linux 36.9.9")


def test_no_gpu(tmp_path):
    """Without a GPU the platform is left, and the version of a driver that found none."""
    found = find_engine_device(Driver("", "", (), "no NVIDIA driver is installed"), tmp_path)
    assert (found.name, found.compute_capability, found.jetson) == ("", "", "")
    assert not found.is_jetson
    assert str(found) == f"no GPU, {found.platform}"


def test_the_first_of_several_gpus(tmp_path):
    """Engines are for the first GPU that the process sees."""
    driver = Driver("570.0", "12.8", (Gpu("A", "8.6", 1), Gpu("B", "8.9", 2)), "")
    assert find_engine_device(driver, tmp_path).name == "A"


def test_this_machine():
    """Whatever the tests run on, it can be described."""
    assert find_engine_device().platform == f"{platform.system()}-{platform.machine()}".lower()


@pytest.mark.parametrize(
    ("l4t", "version", "tensorrt"),
    [
        ("36.4.0", "6.1", "10.3"),
        ("36.4.7", "6.2.1", "10.3"),
        ("38.4.0", "7.1", "10.13.3"),
        ("39.2.0", "7.2", "10.16"),
    ],
)
def test_releases_of_jetpack(l4t, version, tensorrt):
    """The table says what comes with a release."""
    found = find_jetpack(l4t)
    assert (found.version, found.tensorrt) == (version, tensorrt)


def test_the_table_has_each_release_once():
    """Every release of Jetson Linux is there once, with its source."""
    releases = [item.l4t for item in JETPACKS]
    assert len(set(releases)) == len(releases)
    assert all(item.source and len(item.l4t.split(".")) == 3 for item in JETPACKS)
    assert find_jetpack("") is None
