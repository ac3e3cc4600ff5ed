"""The runtimes that a process tells about, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pargo_export.errors import ConfigError
from pargo_export.runtime import Runtime
from pargo_export.telemetry.measures import describe_model

__all__ = ["Watched", "WatchedRuntime"]


@dataclass(frozen=True, eq=False)
class WatchedRuntime:
    """One of them.

    Attributes:
        name: What the application calls it.
        runtime: It.
        model: What it runs (`describe_model`); hashing the manifest at each scrape would be a waste.
    """

    name: str
    runtime: Runtime
    model: Mapping[str, str]


class Watched:
    """Runtimes by name; any thread may use it."""

    def __init__(self) -> None:
        self._by_name: dict[str, WatchedRuntime] = {}
        self._lock = threading.Lock()

    def add(self, name: str, runtime: Runtime) -> Callable[[], None]:
        """Take a runtime, and return what forgets it again.

        Raises:
            ConfigError: The name is in use: the numbers of two runtimes would be added up as one's.
        """
        watched = WatchedRuntime(name, runtime, describe_model(runtime))

        def forget() -> None:
            with self._lock:
                if self._by_name.get(name) is watched:
                    del self._by_name[name]

        with self._lock:
            if name in self._by_name:
                used = ", ".join(repr(item) for item in sorted(self._by_name))
                raise ConfigError(
                    f"name: found {name!r}, which a runtime has already (in use: {used}); choose one for each, or "
                    "first call what `instrument` returned"
                )
            self._by_name[name] = watched
        return forget

    def items(self) -> list[WatchedRuntime]:
        """Return those of this moment, in the order in which they came."""
        with self._lock:
            return list(self._by_name.values())
