"""The one command that builds an engine on the device that it is for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pargo_export.deploy.options import DeployOptions, word_of
from pargo_export.deploy.plan import Plan
from pargo_export.engine.options import EngineOptions

__all__ = ["device_command"]


def device_command(plan: Plan, options: DeployOptions) -> str:
    """Return the command to run on the device, beside the copied bundle.

    Only what differs from the defaults is written out; plugin libraries are named without their directory, as they have
    to be copied too.
    """
    return shlex.join(["pargo-export", "trt", plan.bundle.resolve().name, *_arguments(plan, options)])


def _arguments(plan: Plan, options: DeployOptions) -> Iterator[str]:
    if options.variant is not None:
        yield from ("--variant", options.variant)
    else:
        yield f"--{word_of(plan.precision)}"
    yield from ("--target", str(plan.target))
    if options.flavor != "auto":
        yield from ("--flavor", options.flavor)
    if options.batches:
        yield from ("--batches", ",".join(map(str, options.batches)))
    for name in ("min_batch", "opt_batch", "max_batch"):
        value = getattr(options, name)
        if value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))
    yield from _engine_arguments(options.engine)
    if options.keep != "all":
        yield from ("--keep", options.keep)
    if options.allow_below:
        yield "--allow-below"


def _engine_arguments(engine: EngineOptions) -> Iterator[str]:
    default = EngineOptions()
    if engine.workspace_bytes is not None:
        yield from ("--workspace", str(engine.workspace_bytes))
    if engine.timing_cache != default.timing_cache:
        yield "--no-timing-cache"
    if engine.optimization_level is not None:
        yield from ("--optimization-level", str(engine.optimization_level))
    if engine.profiling:
        yield "--profiling"
    if engine.plugins != default.plugins:
        yield from ("--plugins", engine.plugins)
    for library in engine.plugin_libraries:
        yield from ("--plugin", library.name)
    if engine.min_share != default.min_share:
        yield from ("--min-share", str(engine.min_share))
    if engine.name is not None:
        yield from ("--name", engine.name)
