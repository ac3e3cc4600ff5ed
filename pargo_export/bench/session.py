"""What a worker does with its subject: everything that is measured of one is measured here."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pargo_export.bench.closed_loop import time_block
from pargo_export.bench.open_loop import run_load
from pargo_export.bench.runtime_subject import RuntimeSubject
from pargo_export.bench.subject import LoadedSubject
from pargo_export.bench.sustained import run_sustained
from pargo_export.errors import BackendError
from pargo_export.runtime.runner import Array, StageTimes

__all__ = ["Session"]

# A block of so many runs of each caller begins with one that is not timed: the caches are full of what another subject
# did. Shorter ones would be delayed too much by it.
_UNTIMED_FROM = 4
_MAX_PREPARED = 4  # batches that are kept for each batch size: a run must not find its input in the cache


class Session:
    """A subject, loaded and timed.

    Args:
        factory: What opens it, as `"module:function"`.
        arguments: Of that function.
        imports: Libraries to import before, so that `load_s` does not count it; one that is missing is for the
            function to tell.
        pictures: Files of encoded pictures.

    Attributes:
        methods: What can be asked, by name.
    """

    def __init__(
        self, factory: str, arguments: dict[str, Any], imports: Sequence[str], pictures: Sequence[str]
    ) -> None:
        module, _, function = factory.partition(":")
        for name in imports:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        make: Callable[..., LoadedSubject] = getattr(importlib.import_module(module), function)
        start = time.perf_counter()
        self._subject = make(**arguments)
        self._load_s = time.perf_counter() - start
        self._pictures = [Path(path).read_bytes() for path in pictures]
        self._prepared: dict[int, list[Array]] = {}
        self._last_s: dict[tuple[str, int, int], float] = {}  # seconds of a run by what was timed
        self.methods: dict[str, Callable[..., dict[str, Any]]] = {
            "encode": self._encode,
            "warm_up": self._warm_up,
            "time": self._time,
            "put_load": self._put_load,
            "sustain": self._sustain,
            "close": self._close,
        }

    def describe(self) -> dict[str, Any]:
        """Say what was loaded."""
        return {
            "facts": self._subject.facts.model_dump(mode="json"),
            "max_batch": self._subject.max_batch,
            "has_stages": self._subject.has_stages,
            "load_s": self._load_s,
        }

    def _batch_of(self, batch: int, index: int) -> list[bytes]:
        """Return the pictures of a run: all of them in turns."""
        first = batch * index
        return [self._pictures[position % len(self._pictures)] for position in range(first, first + batch)]

    def _encode(self, num_images: int, batch: int, out: str) -> dict[str, Any]:
        """Write the visual tokens of the first pictures to a file."""
        rows = [
            self._subject.encode(self._batch_of(batch, index)) for index in range(-(-num_images // batch))
        ]
        np.save(out, np.concatenate(rows)[:num_images])
        return {}

    def _warm_up(self, boundary: str, batch: int, concurrency: int, runs: int) -> dict[str, Any]:
        """Make runs whose times are not told."""
        block = time_block(self._call(boundary, batch), concurrency=concurrency, iterations=runs)
        self._last_s[boundary, batch, concurrency] = (block.end_ns - block.start_ns) / 1e9 / runs
        return {}

    def _time(
        self,
        boundary: str,
        batch: int,
        concurrency: int,
        iterations: int | None = None,
        duration_s: float | None = None,
    ) -> dict[str, Any]:
        """Time a block of runs; of `"stages"` the times on the device."""
        call, key = self._call(boundary, batch), (boundary, batch, concurrency)
        expected = iterations or (duration_s or 0) / self._last_s.get(key, 1e-9)
        if expected >= _UNTIMED_FROM * concurrency:
            time_block(call, concurrency=concurrency, iterations=concurrency)
        is_staged = boundary == "stages"
        block = time_block(
            call,
            concurrency=concurrency,
            iterations=iterations,
            duration_s=duration_s,
            keep_results=is_staged,
        )
        self._last_s[key] = (block.end_ns - block.start_ns) / 1e9 / len(block.samples_ns)
        samples = {boundary: [sample / 1e6 for sample in block.samples_ns]}
        if is_staged:
            samples = {
                stage: [getattr(times, f"{stage}_ms") for times in block.results]
                for stage in ("host_to_device", "compute", "device_to_host")
            }
        return {"samples_ms": samples, "start_ns": block.start_ns, "end_ns": block.end_ns}

    def _put_load(self, **load: Any) -> dict[str, Any]:
        """Put one load on the runtime of the subject; see `run_load`."""
        if not isinstance(self._subject, RuntimeSubject):
            raise BackendError("it takes no requests; only what runs in Runtime does")
        point = run_load(self._subject.runtime, self._pictures, **load)
        return point.model_dump(mode="json")

    def _sustain(self, batch: int, duration_s: float, out: str) -> dict[str, Any]:
        """Run end to end without a pause and write begin and time of each run to a file."""
        log = run_sustained(self._call("end_to_end", batch), duration_s=duration_s)
        np.savez(out, starts_ns=log.starts_ns, samples_ms=log.samples_ms)
        return {}

    def _call(self, boundary: str, batch: int) -> Callable[[int], Any]:
        """Return what is timed, as a function of the number of the run."""
        if boundary in {"preprocess", "end_to_end"}:
            pictures = self._batches(batch)
            method = self._subject.preprocess if boundary == "preprocess" else self._subject.encode
            return lambda index: method(pictures[index % len(pictures)])
        if batch not in self._prepared:
            self._prepared[batch] = [
                self._subject.preprocess(item) for item in self._batches(batch)[:_MAX_PREPARED]
            ]
        prepared = self._prepared[batch]
        if boundary == "stages":

            def stages(index: int) -> StageTimes:
                return self._subject.run_stages(prepared[index % len(prepared)])[1]

            return stages
        return lambda index: self._subject.run(prepared[index % len(prepared)])

    def _batches(self, batch: int) -> list[list[bytes]]:
        """Return as many batches as it takes until all pictures had their turn."""
        return [self._batch_of(batch, index) for index in range(-(-len(self._pictures) // batch))]

    def _close(self) -> dict[str, Any]:
        self._subject.close()
        return {}
