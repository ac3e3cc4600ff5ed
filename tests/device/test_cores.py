"""Counting the cores that a process may use."""

from __future__ import annotations

import pytest

from pargo_export.device import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that pretends to be a machine."""

    def pretend(allowed, siblings, limit=None):
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(allowed))
        monkeypatch.setattr(cores, "_CPUS", tmp_path)
        monkeypatch.setattr(cores, "_CGROUP_LIMIT", tmp_path / "cpu.max")
        for cpu, group in siblings.items():
            path = tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list"
            path.parent.mkdir(parents=True)
            path.write_text(f"{group}\n")
        if limit is not None:
            (tmp_path / "cpu.max").write_text(limit)
        return cores.count_usable_cores()

    return pretend


FOUR_CORES = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}


@pytest.mark.parametrize(
    ("allowed", "siblings", "limit", "expected"),
    [
        (range(8), FOUR_CORES, None, 4),
        (range(8), FOUR_CORES, "max 100000\n", 4),
        (range(8), FOUR_CORES, "250000 100000\n", 3),
        (range(8), FOUR_CORES, "10000 100000\n", 1),
        ([0, 4], FOUR_CORES, None, 1),
        ([1, 2, 6], FOUR_CORES, "800000 100000\n", 2),
        (range(6), {}, None, 6),
        (range(2), {}, "nonsense", 2),
    ],
)
def test_physical_cores_within_affinity_and_container(machine, allowed, siblings, limit, expected):
    """Hardware threads of one core count once; the affinity mask and the container's limit count."""
    assert machine(allowed, siblings, limit) == expected


def test_this_machine_has_a_core():
    """The real files are read without error."""
    assert cores.count_usable_cores() >= 1
