"""The command that is printed for a device is one that this program takes, and means the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pargo_export.bundle import Bundle
from pargo_export.cli.commands import trt
from pargo_export.deploy import DeployOptions, make_plan
from pargo_export.deploy.device_command import device_command
from pargo_export.engine.options import EngineOptions


def parse(command: str) -> tuple[Path, DeployOptions]:
    """Read a command line as click does; return the source and the options of the library."""
    words = shlex.split(command)
    assert words[:2] == ["pargo-export", "trt"]
    values = trt.command.make_context("trt", words[2:]).params
    source = values.pop("source")
    for name in ("output", "show_trtexec", "dry_run", "force", "as_json", "verbose", "quiet", "debug"):
        values.pop(name)
    return source, trt._options(**values)


@pytest.mark.parametrize(
    "choices",
    [
        {"precision": "int8"},
        {"precision": "int8_weight_only", "batches": (1, 4)},
        {"precision": "float16", "min_batch": 1, "opt_batch": 2, "max_batch": 4},
        {"precision": "bfloat16", "flavor": "tensorrt", "allow_below": True},
        {"variant": "bf16", "max_batch": 2},
        {"precision": "int8", "keep": "fastest"},
        {
            "precision": "int8",
            "engine": EngineOptions(
                workspace_bytes=3 << 28,
                timing_cache=False,
                optimization_level=5,
                profiling=True,
                plugins="require",
                plugin_libraries=(Path("a.so"), Path("b c.so")),
                min_share=0.9,
                name="mine",
            ),
        },
    ],
    ids=["int8", "batches", "profile", "flavor", "variant", "fastest", "builder"],
)
def test_the_command_says_what_was_asked_for(bundle, machine, choices):
    """Read back, it gives the same options."""
    options = DeployOptions(target="orin", **choices)
    plan = make_plan(bundle, options, facts=machine())
    source, found = parse(device_command(plan, options))
    assert source == Path(bundle.name)
    assert found == options


def test_what_is_only_for_this_machine_is_left_out(bundle, machine):
    """Calibration data and the base are not on the device, nor is the directory of a library."""
    library = EngineOptions(plugins="auto", plugin_libraries=(Path("/home/me/a.so"),))
    options = DeployOptions(precision="int8", target="orin", engine=library, base="fp32")
    plan = make_plan(bundle, options, facts=machine())
    assert device_command(plan, options) == (
        f"pargo-export trt {bundle.name} --int8 --target orin --plugins auto --plugin a.so"
    )


def test_a_bundle_called_by_a_dot_keeps_its_name(bundle, machine, monkeypatch):
    """On the device the directory is called as it is here."""
    monkeypatch.chdir(bundle)
    options = DeployOptions(precision="int8", target="orin")
    plan = make_plan(".", options, facts=machine())
    assert device_command(plan, options).startswith(f"pargo-export trt {bundle.name} ")
    assert Bundle.exists(bundle)
