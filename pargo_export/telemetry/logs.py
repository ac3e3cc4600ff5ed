"""Requests of a runtime as log records, with fields for machines.

Every record has `pargo_event="request"`, `pargo_runtime`, `pargo_outcome`, `pargo_num_requests`, `pargo_num_images`,
`pargo_error` (empty if there was none), and of the stages that took place `pargo_queue_s`, `pargo_preprocess_s`,
`pargo_run_s`. What the package logs by itself has fields of that prefix as well: docs/embedding.md lists them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pargo_export.runtime import Runtime
from pargo_export.runtime.events import EventKind, RunEvent
from pargo_export.telemetry.measures import outcome_of, stages_of

__all__ = ["instrument"]

_LOGGER = logging.getLogger("pargo_export.telemetry")
# To give way to a later frame is what the caller asked for; to come too late, or to find no room, is not.
_LEVELS: dict[EventKind, int] = {
    "run": logging.DEBUG,
    "replaced": logging.DEBUG,
    "expired": logging.WARNING,
    "refused": logging.WARNING,
    "failed": logging.ERROR,
}


def instrument(
    runtime: Runtime, *, name: str = "default", logger: logging.Logger = _LOGGER
) -> Callable[[], None]:
    """Log how each request ended: completed and replaced ones at DEBUG, expired and refused at WARNING, failed at ERROR.

    Args:
        runtime: What to watch.
        name: Value of the field `pargo_runtime`.
        logger: Where the records go.

    Returns:
        What ends it; again does nothing.
    """

    def listen(event: RunEvent) -> None:
        level = _LEVELS[event.kind]
        if not logger.isEnabledFor(level):
            return
        outcome, stages = outcome_of(event), dict(stages_of(event))
        fields = {
            "pargo_event": "request",
            "pargo_runtime": name,
            "pargo_outcome": outcome,
            "pargo_num_requests": event.num_requests,
            "pargo_num_images": event.num_images,
            "pargo_error": event.error,
            **{f"pargo_{stage}_s": seconds for stage, seconds in stages.items()},
        }
        times = ", ".join(f"{stage} {seconds * 1e3:.1f} ms" for stage, seconds in stages.items())
        told = "; ".join(part for part in (event.error, times) if part)
        logger.log(level, "request %s%s", outcome, f": {told}" if told else "", extra=fields)

    return runtime.subscribe(listen)
