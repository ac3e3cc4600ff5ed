"""How a runtime queues, gathers and prepares what it is handed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pargo_export.errors import ConfigError

__all__ = ["QueueOptions"]


@dataclass(frozen=True)
class QueueOptions:
    """Options of `Runtime.open` that no backend needs to know; documented there.

    Raises:
        ConfigError: `max_pending` or `preprocess_threads` is not positive, `gather_ms` negative or not finite.
    """

    max_pending: int = 16
    gather_ms: float = 0.0
    preprocess_threads: int | None = None
    jpeg_draft: bool = False
    check_finite: bool = True

    def __post_init__(self) -> None:
        if self.max_pending < 1:
            raise ConfigError(f"max_pending: found {self.max_pending}, expected at least 1")
        if not (math.isfinite(self.gather_ms) and self.gather_ms >= 0):
            raise ConfigError(f"gather_ms: found {self.gather_ms}, expected milliseconds, 0 or more")
        if self.preprocess_threads is not None and self.preprocess_threads < 1:
            raise ConfigError(
                f"preprocess_threads: found {self.preprocess_threads}, expected at least 1, or None for every core"
            )
