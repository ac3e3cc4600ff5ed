"""The command that builds an engine again is one that the command line takes, and means the same engine."""

from __future__ import annotations

import shlex

import pytest
from bundle.samples import ORIN, SHA256, make_engine, make_variant

from pargo_export.bundle import BatchProfile, EngineDevice, PluginRequirement
from pargo_export.cli.commands.trt import command
from pargo_export.engine.options import EngineOptions, buckets
from pargo_export.trt.rebuild import DEFAULT_MIN_SHARE, rebuild_command

PLUGIN = PluginRequirement(
    operators=("pargo::PartialGlobalAttention",),
    kind="library",
    file="engines/libplugin.so",
    sha256=SHA256,
)
AMPERE = EngineDevice(name="A2000", compute_capability="8.6", platform="linux-x86_64")


def _words(engine, device=ORIN, **variant):
    return shlex.split(rebuild_command(engine, make_variant(**variant), device, "b"))[3:]


def test_defaults_are_left_out():
    """An engine with the defaults needs only its variant and flavor."""
    assert _words(make_engine(settings=EngineOptions().settings())) == [
        "--variant",
        "fp32",
        "--flavor",
        "tensorrt",
    ]


def test_the_default_share_is_that_of_the_options():
    """The base cannot import the options, so both are compared here."""
    assert EngineOptions().min_share == DEFAULT_MIN_SHARE


def test_every_setting_is_repeated():
    """What was asked for the engine is asked for again."""
    options = EngineOptions(
        workspace_bytes=1 << 30,
        timing_cache=False,
        optimization_level=5,
        profiling=True,
        plugins="require",
        min_share=0.5,
    )
    engine = make_engine("mine", settings=options.settings(), plugins=(PLUGIN,))
    assert _words(engine)[4:] == [
        *("--workspace", "1073741824", "--optimization-level", "5", "--no-timing-cache", "--profiling"),
        *(
            "--plugins",
            "require",
            "--plugin",
            "b/engines/libplugin.so",
            "--min-share",
            "0.5",
            "--name",
            "mine",
        ),
    ]


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        (buckets([1, 4]), ["--batches", "1,4"]),
        (
            (BatchProfile(min_batch=1, opt_batch=2, max_batch=3),),
            ["--min-batch", "1", "--opt-batch", "2", "--max-batch", "3"],
        ),
    ],
)
def test_batches(profiles, expected):
    """Several profiles become batch sizes, a single one its three numbers."""
    assert _words(make_engine(profiles=profiles))[4:] == expected


@pytest.mark.parametrize(
    ("name", "built_for", "expected"),
    [
        ("fp32-rtx", (), ["--target", "rtx"]),
        ("fp32-rtx-sm89", ("8.9",), ["--target", "rtx:sm89,sm86"]),
        ("fp32-rtx-sm86", ("8.6",), ["--target", "rtx:sm86"]),
        ("other", ("8.6",), ["--target", "rtx:sm86", "--name", "other"]),
    ],
)
def test_rtx_gets_the_gpu_of_this_machine(name, built_for, expected):
    """A list of GPUs is extended by the one of this machine; a name made from the list is made anew."""
    engine = make_engine(name, flavor="rtx", compute_capabilities=built_for)
    assert _words(engine, AMPERE)[4:] == expected


@pytest.mark.parametrize(
    "changes",
    [
        {
            "settings": {
                "workspace_bytes": 1 << 30,
                "optimization_level": 5,
                "profiling": True,
                "min_share": 0.5,
            }
        },
        {"settings": {"plugins": "require", "timing_cache": False}, "plugins": (PLUGIN,), "name": "mine"},
        {"profiles": buckets([1, 4])},
        {"flavor": "rtx", "compute_capabilities": ("8.9",)},
    ],
)
def test_the_command_line_takes_it(changes):
    """Every word is one that `pargo-export trt` knows, with the meaning that it had."""
    name = changes.get("name", "fp32-sm87")
    engine = make_engine(**({"name": name} | changes))
    words = shlex.split(rebuild_command(engine, make_variant(), AMPERE, "b"))
    assert words[:2] == ["pargo-export", "trt"]
    values = command.make_context("trt", words[2:]).params
    assert values["variant"] == "fp32"
    assert values["flavor"] == engine.flavor
    assert values["name"] in {None, "mine", "fp32-sm87"}
    if "workspace_bytes" in engine.settings:
        assert values["workspace_bytes"] == 1 << 30
        assert (values["optimization_level"], values["min_share"]) == (5, 0.5)
    assert values["timing_cache"] is engine.settings.get("timing_cache", True)


def test_what_rtx_does_not_build_for_by_default():
    """An engine for the default GPUs is built for Turing by naming it."""
    engine = make_engine("fp32-rtx", flavor="rtx", compute_capabilities=())
    turing = AMPERE.model_copy(update={"compute_capability": "7.5"})
    assert _words(engine, turing)[4:] == ["--target", "rtx:sm75"]
