"""A graph of a bundle as a subject: what an application gets from `Runtime`."""

from __future__ import annotations

from collections.abc import Sequence

from pargo_export.bench.records import Subject
from pargo_export.bench.subject import LoadedSubject
from pargo_export.runtime import BACKENDS, Runtime
from pargo_export.runtime.runner import Array, StageTimes

__all__ = ["RuntimeSubject"]


class RuntimeSubject(LoadedSubject):
    """An open runtime. Every method takes several callers at once.

    Args:
        runtime: Closed with the subject.
        name: Of the subject.

    Attributes:
        runtime: For what goes beyond a closed loop.
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.runtime = runtime
        self.max_batch = runtime.max_batch
        self.has_stages = runtime.times_stages
        self._feed, self._output = runtime.signature.inputs[0].name, runtime.signature.outputs[0].name
        variant, engine = runtime.variant, runtime.engine
        self.facts = Subject(
            name=name,
            kind="runtime",
            bundle=str(runtime.bundle.path),
            variant=variant.name,
            precision=variant.precision,
            backend=runtime.backend,
            engine=engine.name if engine else None,
            device=next(backend.device for backend in BACKENDS if backend.name == runtime.backend),
            description=runtime.description,
            graph_sha256=engine.engine_sha256
            if engine
            else runtime.bundle.manifest.graph_sha256(variant.graph),
        )

    def preprocess(self, pictures: Sequence[bytes]) -> Array:
        """Prepare pictures as the graph takes them."""
        return self.runtime.prepare(list(pictures))

    def run(self, batch: Array) -> Array:
        """Run the graph."""
        return self.runtime.run({self._feed: batch})[self._output]

    def encode(self, pictures: Sequence[bytes]) -> Array:
        """Encode all pictures in one run."""
        tokens: Array = self.runtime.encode(list(pictures), batch_size=len(pictures))
        return tokens

    def run_stages(self, batch: Array) -> tuple[Array, StageTimes]:
        """Run the graph with events between its stages."""
        outputs, times = self.runtime.run_stages({self._feed: batch})
        return outputs[self._output], times

    def close(self) -> None:
        """Close the runtime."""
        self.runtime.close()
