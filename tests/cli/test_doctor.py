from __future__ import annotations

import dataclasses

import pytest

from pargo_export import doctor
from pargo_export.doctor import Driver, Gpu, Jetson


@pytest.fixture
def jetson(monkeypatch):
    """Pretend to be a Jetson that cannot run anything."""
    found = doctor.diagnose()
    machine = dataclasses.replace(found.machine, jetson=Jetson("Jetson AGX Orin", "36.4.3"))
    driver = Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 64 * 10**9),), "")
    abilities = tuple(
        dataclasses.replace(ability, ok=False, reason="broken: mend it") for ability in found.abilities
    )
    found = dataclasses.replace(found, jetpack="6.2")
    changed = dataclasses.replace(found, machine=machine, driver=driver, abilities=abilities)
    monkeypatch.setattr(doctor, "diagnose", lambda: changed)


def test_this_machine(run):
    """The machine, the packages and what works, in 80 columns."""
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "✓ onnxruntime " in result.stdout
    assert "not bfloat16: " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_json(run_json):
    """The diagnosis is there in full."""
    result = run_json("doctor")
    assert result["can_run"] is True
    assert {ability["name"] for ability in result["abilities"]} >= {"export", "onnxruntime"}


@pytest.mark.usefixtures("jetson")
def test_a_machine_that_can_run_nothing(run):
    """GPU and board are shown, every obstacle with its mend, and the exit status is 1."""
    result = run("doctor")
    assert result.exit_code == 1
    for fact in (
        "Jetson AGX Orin, Jetson Linux 36.4.3, JetPack 6.2",
        "Orin, compute capability 8.7, 64 GB",
        "540.4.0, up to CUDA 12.6",
        "✗ onnxruntime      broken: mend it",
    ):
        assert fact in result.stdout


def test_notes_are_shown(run, monkeypatch):
    """What decides the speed of a backend stands with it."""
    found = doctor.diagnose()
    abilities = tuple(dataclasses.replace(ability, note="a bicycle is faster") for ability in found.abilities)
    monkeypatch.setattr(doctor, "diagnose", lambda: dataclasses.replace(found, abilities=abilities))
    assert run("doctor").stdout.count("a bicycle is faster") == sum(ability.ok for ability in abilities)


def test_several_gpus(run, monkeypatch):
    """The first one is marked: engines are built for it, and run on it."""
    found = doctor.diagnose()
    driver = Driver("570.0", "12.8", (Gpu("A", "8.6", 10**9), Gpu("B", "8.9", 10**9)), "")
    monkeypatch.setattr(doctor, "diagnose", lambda: dataclasses.replace(found, driver=driver))
    text = run("doctor").stdout
    assert "A, compute capability 8.6, 1 GB, the one that is used" in " ".join(text.split())
    assert text.count("the one that is used") == 1
