"""Energy of CPU packages: packages alone, their counters begin anew, and often only root may read them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from machine_trees import RAPL, write_tree

from pargo_export.bench.probes.rapl import open_rapl
from pargo_export.bench.probes.sensor import SensorError

ZONES = "sys/class/powercap"
RANGE = 262143328850


def _set(root, package, energy):
    write_tree(root, {f"{ZONES}/intel-rapl:{package}/energy_uj": f"{energy}\n"})


def test_packages_are_added_parts_are_not(tmp_path):
    """Memory, the platform and the second way to the same package are left out; the sum begins at zero."""
    sensor = open_rapl(write_tree(tmp_path, RAPL))
    assert (sensor.name, sensor.measures) == ("RAPL, 2 packages", "energy")
    assert sensor.read() == 0
    _set(tmp_path, 0, 3_000_000)
    _set(tmp_path, 1, 5_500_000)
    _set(tmp_path, "0:0", 900_000_000)
    assert sensor.read() == pytest.approx(2.5)


def test_a_counter_begins_anew(tmp_path):
    """A package whose counter is at its end goes on from its begin, the others do not."""
    root = write_tree(tmp_path, RAPL)
    _set(root, 0, RANGE - 1_000_000)
    sensor = open_rapl(root)
    _set(root, 0, 2_000_000)
    assert sensor.read() == pytest.approx(3.0)
    _set(root, 1, 6_000_000)
    assert sensor.read() == pytest.approx(4.0)


def test_one_package(tmp_path):
    """A desktop has one package, and is called so."""
    root = write_tree(tmp_path, {name: text for name, text in RAPL.items() if "rapl:0" in name})
    assert open_rapl(root).name == "RAPL package"


@pytest.fixture
def unreadable():
    """A machine of files that only their owner may read, and a user who is not the owner."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    write_tree(root, RAPL)
    (root / ZONES / "intel-rapl:0/energy_uj").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield root
    if is_root:
        os.seteuid(0)
    shutil.rmtree(root)


def test_only_root_may_read(unreadable):
    """One package that may not be read is enough: half of a machine is not its power."""
    with pytest.raises(SensorError, match=r"only root may read .*intel-rapl:0/energy_uj.*chmod a\+r"):
        open_rapl(unreadable)


def test_without_rapl(tmp_path):
    """A virtual machine has none; a counter without an end or with nonsense is refused."""
    with pytest.raises(SensorError, match="shows no RAPL package"):
        open_rapl(tmp_path)
    root = write_tree(tmp_path, RAPL)
    _set(root, 1, "nonsense")
    with pytest.raises(SensorError, match="intel-rapl:1/energy_uj cannot be read"):
        open_rapl(root)
    (root / ZONES / "intel-rapl:0/max_energy_range_uj").unlink()
    with pytest.raises(SensorError, match="does not say where the counter begins anew"):
        open_rapl(root)
