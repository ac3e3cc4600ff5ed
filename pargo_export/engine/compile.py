"""Run the builder: watched, stoppable, measured, and with an error that says why there is no engine."""

from __future__ import annotations

import re
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pargo_export.bundle import Variant
from pargo_export.engine.monitor import STEPS, BuildProgress, make_monitor, watch_for_interrupt
from pargo_export.engine.network import ParsedNetwork
from pargo_export.engine.refusals import describe_build_failure
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig, IProgressMonitor

__all__ = ["CompiledEngine", "compile_engine"]

_KIB = 1024
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class CompiledEngine:
    """What the builder gave.

    Attributes:
        plan: The serialized engine, as an object with the buffer protocol.
        seconds: Duration of the build.
        peak_memory_bytes: Largest resident memory of the process until then.
    """

    plan: memoryview
    seconds: float
    peak_memory_bytes: int


def compile_engine(
    tensorrt: TensorRT,
    parsed: ParsedNetwork,
    config: IBuilderConfig,
    variant: Variant,
    *,
    settings: str,
    advance: Callable[[int, int], None],
    cancel: threading.Event,
) -> CompiledEngine:
    """Build the engine.

    Args:
        tensorrt: What builds.
        parsed: The network.
        config: The builder's configuration.
        variant: For messages.
        settings: The settings that matter, for messages.
        advance: Called with the steps done and in all; may raise, which stops the build.
        cancel: Stops the build when it is set.

    Raises:
        EngineError: The build was cancelled, or gave no engine.
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
    """
    progress = BuildProgress(advance, cancel)
    monitor = make_monitor(tensorrt, progress)
    config.progress_monitor = monitor
    begin = time.monotonic()
    with tensorrt.log.watch() as log, watch_for_interrupt(progress):
        # None if it fails, else with the buffer protocol: of both the stubs say nothing.
        plan: Any = parsed.builder.build_serialized_network(parsed.network, config)
        reason = log.reason("it gives no reason")
    seconds = time.monotonic() - begin
    config.progress_monitor = cast("IProgressMonitor", None)  # takes it off; the stubs know only setting one
    progress.reraise()
    if progress.stopped or cancel.is_set():
        raise EngineError(f"the build of variant {variant.name!r} was cancelled; the bundle is as it was")
    if plan is None:
        raise EngineError(describe_build_failure(tensorrt, variant, reason, settings))
    advance(STEPS, STEPS)  # a build may end before the last step of a phase
    return CompiledEngine(memoryview(plan), seconds, _peak_memory_bytes())


def _peak_memory_bytes() -> int:
    """Return the largest resident memory of this process; `ru_maxrss` begins with that of the one that started it."""
    try:
        status = _STATUS.read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    match = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * _KIB if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
