"""Containers and virtual machines."""

from __future__ import annotations

import pytest
from machine_trees import ORIN_NX, XEON, write_tree

from pargo_export.device.surroundings import is_container, is_virtual

DISK = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
LAYERS = "480 400 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/x\n"
ELSEWHERE = "90 22 0:61 / /var/lib/docker/overlay2/x rw - overlay overlay rw\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".dockerenv": ""}, True),
        ({"run/.containerenv": ""}, True),
        ({"proc/1/cgroup": "0::/\n", "proc/self/mountinfo": LAYERS}, True),
        ({"proc/1/cgroup": "4:memory:/kubepods/besteffort/pod1\n"}, True),
        ({"proc/1/cgroup": "0::/init.scope\n", "proc/self/mountinfo": DISK}, False),
        ({"proc/1/cgroup": "0::/init.scope\n", "proc/self/mountinfo": DISK + ELSEWHERE}, False),
        ({}, None),
    ],
)
def test_container(tmp_path, files, expected):
    """A container is known by its marks, its control group or its root of layers; a host of containers is none."""
    assert is_container(write_tree(tmp_path, files)) is expected


def test_virtual(tmp_path):
    """x86 has a flag; Arm tells only where a hypervisor says so."""
    assert is_virtual(write_tree(tmp_path, XEON)) is False
    flags = XEON["proc/cpuinfo"].replace("fpu", "fpu hypervisor")
    assert is_virtual(write_tree(tmp_path, {"proc/cpuinfo": flags})) is True
    assert is_virtual(write_tree(tmp_path / "orin", ORIN_NX, {"proc/cpuinfo": "Features : fp\n"})) is None
    assert is_virtual(write_tree(tmp_path / "orin", {"sys/hypervisor/type": "xen\n"})) is True
