"""What can be measured: something loaded in this process that turns pictures into visual tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from typing_extensions import Self

from pargo_export.bench.records import Subject
from pargo_export.errors import BackendError
from pargo_export.runtime.runner import Array, StageTimes

__all__ = ["LoadedSubject"]


class LoadedSubject(ABC):
    """A subject, loaded and warmed up. `preprocess`, `run` and `encode` take several callers at once.

    Attributes:
        facts: What it is; without the fields that others measure (`load_s`, `evidence`, `memory`).
        max_batch: Images in one run at most.
        has_stages: Whether `run_stages` tells the times on the device.
    """

    facts: Subject
    max_batch: int
    has_stages: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def preprocess(self, pictures: Sequence[bytes]) -> Array:
        """Decode encoded pictures and prepare them as the graph takes them, `[B, ...]`.

        Raises:
            ImageError: A picture cannot be read.
        """

    @abstractmethod
    def run(self, batch: Array) -> Array:
        """Compute visual tokens, float32 `[B, Q, C_llm]` on the host, of what `preprocess` returned; waits for them.

        Raises:
            BackendError: The execution failed.
        """

    def encode(self, pictures: Sequence[bytes]) -> Array:
        """Compute the visual tokens of encoded pictures, as an application does."""
        return self.run(self.preprocess(pictures))

    def run_stages(self, batch: Array) -> tuple[Array, StageTimes]:  # noqa: ARG002 - what others need
        """Compute as `run` does, and tell the times between the boundaries on the device.

        Raises:
            BackendError: It cannot (`has_stages`), or the execution failed.
        """
        raise BackendError(f"{self.facts.name} does not tell the times of its stages")

    @abstractmethod
    def close(self) -> None:
        """Free it; again does nothing."""
