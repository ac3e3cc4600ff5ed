"""The command that builds an engine again, with its own settings, on another machine or for a changed graph."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from pargo_export.bundle import Engine, EngineDevice, Variant, default_engine_name
from pargo_export.trt.compatibility import RTX_LOWEST, version_parts

__all__ = ["rebuild_command"]

DEFAULT_MIN_SHARE = (
    0.99  # EngineOptions has it; engines are built by a later stage, which the base does not import
)


def rebuild_command(
    engine: Engine, variant: Variant, device: EngineDevice, bundle: str | os.PathLike[str] = "BUNDLE"
) -> str:
    """Return one shell command, with what differs from the defaults.

    The engine keeps its name if it was given one; a name made from variant and GPU is made anew.

    Args:
        engine: The engine to replace.
        variant: What it was built from.
        device: The machine that it is to run on, where the command is to be run.
        bundle: Directory of the bundle.
    """
    words = [
        "pargo-export",
        "trt",
        os.fspath(bundle),
        "--variant",
        engine.variant,
        "--flavor",
        engine.flavor,
        *_target(engine, device),
        *_batches(engine, variant),
        *_settings(engine, os.fspath(bundle)),
    ]
    if engine.name != default_engine_name(engine.variant, engine.flavor, engine.compute_capabilities):
        words += ["--name", engine.name]
    return shlex.join(words)


def _target(engine: Engine, device: EngineDevice) -> Iterator[str]:
    """Name the GPUs for RTX, with the one of this machine; TensorRT builds for the GPU that it runs on."""
    if engine.flavor != "rtx":
        return
    here = device.compute_capability
    capabilities = list(engine.compute_capabilities)
    if here and here not in capabilities and (capabilities or version_parts(here) < RTX_LOWEST):
        capabilities.append(here)
    words = ",".join(map(_sm, capabilities))
    yield from ("--target", f"rtx:{words}" if words else "rtx")


def _batches(engine: Engine, variant: Variant) -> Iterator[str]:
    if len(engine.profiles) > 1:
        yield from ("--batches", ",".join(str(profile.max_batch) for profile in engine.profiles))
        return
    (profile,) = engine.profiles
    if (profile.min_batch, profile.opt_batch, profile.max_batch) == (1, 1, variant.max_batch):
        return
    for name in ("min_batch", "opt_batch", "max_batch"):
        yield from (f"--{name.replace('_', '-')}", str(getattr(profile, name)))


def _settings(engine: Engine, bundle: str) -> Iterator[str]:
    settings = engine.settings
    for name, word in (("workspace_bytes", "--workspace"), ("optimization_level", "--optimization-level")):
        if name in settings:
            yield from (word, str(settings[name]))
    if not settings.get("timing_cache", True):
        yield "--no-timing-cache"
    if settings.get("profiling"):
        yield "--profiling"
    if settings.get("plugins", "off") != "off":
        yield from ("--plugins", str(settings["plugins"]))
        for item in engine.plugins:
            if item.file is not None:
                yield from ("--plugin", f"{bundle}/{item.file}")
    if settings.get("min_share", DEFAULT_MIN_SHARE) != DEFAULT_MIN_SHARE:
        yield from ("--min-share", str(settings["min_share"]))


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")
