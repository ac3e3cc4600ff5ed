"""What an engine is for, which TensorRT builds it, and whether this machine can."""

from __future__ import annotations

import re

import pytest

from pargo_export.deploy.target import Target, find_mismatch, resolve_flavor, resolve_target
from pargo_export.errors import ConfigError, EngineError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orin", Target("orin")),
        ("rtx", Target("rtx")),
        ("rtx:sm86", Target("rtx", ("8.6",))),
        ("rtx:86, sm_120,8.9", Target("rtx", ("8.6", "12.0", "8.9"))),
        ("rtx:sm86,8.6", Target("rtx", ("8.6",))),
    ],
)
def test_targets_are_read(text, expected):
    """With the compute capabilities of RTX in every usual spelling, each once."""
    assert Target.parse(text) == expected


def test_a_target_is_written_as_it_is_read():
    """So that a command can name it."""
    assert str(Target.parse("rtx:8.6,sm120")) == "rtx:sm86,sm120"
    assert str(Target("thor")) == "thor"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cpu", "known: auto, cuda, orin, thor, rtx, and rtx:sm86,sm89"),
        ("orin:sm87", "compute capabilities are for rtx alone"),
        ("rtx:", "expected compute capabilities such as rtx:sm86,sm120"),
        ("rtx:sm8", "expected compute capabilities"),
    ],
)
def test_what_is_no_target_is_refused(text, reason):
    """With the known ones."""
    with pytest.raises(ConfigError, match=reason):
        Target.parse(text)


@pytest.mark.parametrize(
    ("gpu", "installed", "flavor", "expected"),
    [
        ("orin", ("tensorrt",), "auto", "orin"),
        ("thor", ("tensorrt",), "auto", "thor"),
        ("pc", ("tensorrt",), "auto", "cuda"),
        ("pc", ("tensorrt", "rtx"), "auto", "cuda"),
        ("pc", ("tensorrt", "rtx"), "rtx", "rtx"),
        ("pc", ("rtx",), "auto", "rtx"),
        ("pc", ("rtx",), "tensorrt", "cuda"),
        ("pc", (), "auto", "cuda"),
        ("none", ("rtx",), "auto", "rtx"),
        ("none", ("tensorrt", "rtx"), "auto", "rtx"),
        ("none", (), "rtx", "rtx"),
    ],
)
def test_auto_is_this_machine(machine, gpu, installed, flavor, expected):
    """A Jetson by its compute capability, another GPU by the TensorRT that is there, else RTX, which needs no GPU."""
    facts = machine(gpu, *installed)
    found = resolve_target("auto", flavor=flavor, device=facts.device, find_obstacle=facts.find_obstacle)
    assert found == Target(expected)


@pytest.mark.parametrize(
    ("installed", "flavor", "reason"),
    [((), "auto", "rtx is not installed"), (("tensorrt", "rtx"), "tensorrt", "has no NVIDIA GPU")],
)
def test_auto_without_a_gpu_needs_rtx(machine, installed, flavor, reason):
    """TensorRT builds only on a GPU; the message names what can be done."""
    facts = machine("none", *installed)
    with pytest.raises(EngineError, match=reason) as caught:
        resolve_target("auto", flavor=flavor, device=facts.device, find_obstacle=facts.find_obstacle)
    assert "--target orin, thor or cuda" in str(caught.value)


def test_an_unknown_jetson_is_not_guessed(machine):
    """A Jetson whose GPU is no known one has to be named."""
    facts = machine("orin", "tensorrt")
    device = facts.device.model_copy(update={"compute_capability": "7.2"})
    with pytest.raises(EngineError, match=r"AGX Orin, whose GPU has compute capability 7\.2"):
        resolve_target("auto", flavor="auto", device=device, find_obstacle=facts.find_obstacle)


@pytest.mark.parametrize(
    ("target", "installed", "expected"),
    [
        ("orin", (), "tensorrt"),
        ("thor", ("rtx",), "tensorrt"),
        ("rtx", ("tensorrt",), "rtx"),
        ("cuda", ("tensorrt", "rtx"), "tensorrt"),
        ("cuda", ("rtx",), "rtx"),
        ("cuda", (), "tensorrt"),
    ],
)
def test_the_target_decides_for_the_flavor(machine, target, installed, expected):
    """Jetsons run TensorRT, RTX targets its sibling; elsewhere what is installed, TensorRT first."""
    found = resolve_flavor(Target(target), "auto", find_obstacle=machine("none", *installed).find_obstacle)
    assert found == expected


@pytest.mark.parametrize(("target", "flavor"), [("rtx", "tensorrt"), ("orin", "rtx"), ("thor", "rtx")])
def test_a_flavor_that_does_not_serve_the_target_is_refused(machine, target, flavor):
    """The two contradict each other."""
    with pytest.raises(ConfigError, match="TensorRT for RTX"):
        resolve_flavor(Target(target), flavor, find_obstacle=machine().find_obstacle)


@pytest.mark.parametrize(
    ("target", "flavor", "gpu", "reason"),
    [
        ("orin", "tensorrt", "orin", None),
        ("thor", "tensorrt", "thor", None),
        ("cuda", "tensorrt", "pc", None),
        ("rtx", "rtx", "none", None),
        ("cuda", "rtx", "none", None),
        (
            "orin",
            "tensorrt",
            "pc",
            r"an engine for orin is built on one \(compute capability 8.7\); this machine has RTX",
        ),
        ("orin", "tensorrt", "thor", "an engine for orin is built on one"),
        ("thor", "tensorrt", "none", "this machine has no NVIDIA GPU"),
        ("cuda", "tensorrt", "none", "this machine has no NVIDIA GPU"),
        ("cuda", "tensorrt", "orin", "this machine has Orin of compute capability 8.7"),
    ],
)
def test_tensorrt_has_no_cross_build(machine, target, flavor, gpu, reason):
    """It builds for the GPU of this machine alone, TensorRT for RTX for any."""
    found = find_mismatch(Target(target), flavor, machine(gpu).device)
    assert (found is None) == (reason is None)
    assert reason is None or re.search(reason, found)
