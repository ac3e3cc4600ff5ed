"""Load every subject, hold it against the reference, and measure those that passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pargo_export.bench.gate import (
    Reference,
    check_outputs,
    compute_reference,
    describe_failure,
    num_checked,
)
from pargo_export.bench.inputs import Pictures
from pargo_export.bench.load_sweep import sweep
from pargo_export.bench.monitor import Monitor
from pargo_export.bench.options import DEFAULT_DURATION_S, BenchOptions
from pargo_export.bench.probes.memory import read_memory
from pargo_export.bench.process import SubjectProcess, SubjectSpec
from pargo_export.bench.records import LoadPoint, LoadSweep, MemoryUse, Subject
from pargo_export.bench.rounds import Times, run_rounds
from pargo_export.bench.sustained import RunLog
from pargo_export.errors import BackendError, ParityError

__all__ = ["Findings", "measure"]

_ENOUGH_REQUESTS = 45  # more than `load_sweep` warns about, also if by chance fewer arrive


@dataclass
class Findings:
    """What was found before it is summarized.

    Attributes:
        subjects: All of them, in the order in which they were given.
        times: Of those that passed.
        loads: Sweeps.
        sustained: Runs without a pause, by subject, and their batch size.
        has_stages: Whether any subject told the times of its stages.
        warnings: What went on beside it that makes the times doubtful.
        other_load: Share of the CPU time that others used; `None` if unknown.
    """

    subjects: tuple[Subject, ...]
    times: Times
    loads: list[LoadSweep] = field(default_factory=list)
    sustained: dict[str, tuple[int, RunLog]] = field(default_factory=dict)
    has_stages: bool = False
    warnings: tuple[str, ...] = ()
    other_load: float | None = None


def measure(
    specs: Sequence[SubjectSpec],
    reference: SubjectSpec,
    batches: Sequence[int],
    pictures: Pictures,
    options: BenchOptions,
    *,
    folder: Path,
    monitor: Monitor,
    progress: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Measure subjects, each in a process of its own, interleaved.

    A subject that cannot be loaded, misses the limits, or fails on the way has a `failure` and no times.

    Args:
        specs: The subjects.
        reference: What their outputs are held against; loaded first and ended before anything is timed.
        batches: Batch sizes.
        pictures: What is encoded.
        options: How to measure.
        folder: Empty; for pictures, outputs and logs.
        monitor: What goes on beside it; entered.
        progress: Called with a short text at the start of each step.

    Raises:
        BackendError: The reference cannot be computed.
    """
    bench = _Bench(batches, options, folder, monitor, progress)
    bench.write_pictures(pictures)
    bench.compute_reference(reference)
    with ExitStack() as stack:
        for spec in specs:
            bench.load(spec, stack)
        return bench.measure()


class _Bench:
    """The subjects while they are loaded."""

    def __init__(
        self,
        batches: Sequence[int],
        options: BenchOptions,
        folder: Path,
        monitor: Monitor,
        progress: Callable[[str], None],
    ) -> None:
        self._batches, self._options, self._folder = batches, options, folder
        self._monitor, self._progress = monitor, progress
        self._files: list[Path] = []
        self._subjects: dict[str, Subject] = {}
        self._processes: dict[str, SubjectProcess] = {}  # of those that passed
        self._memory: dict[str, MemoryUse] = {}

    def write_pictures(self, pictures: Pictures) -> None:
        """Put the pictures where every process can read them."""
        for index, content in enumerate(pictures.contents):
            self._files.append(self._folder / f"picture-{index}")
            self._files[-1].write_bytes(content)

    def compute_reference(self, spec: SubjectSpec) -> None:
        """Compute what the outputs are held against."""
        self._progress(f"computing the reference: {spec.facts.name}")
        try:
            with self._start(spec, "reference") as process:
                count = min(len(self._files), num_checked(max(self._batches), len(self._files)))
                self._reference: Reference = compute_reference(process, count, self._folder / "reference.npy")
        except BackendError as error:
            raise BackendError(
                f"the reference that every output is held against cannot be computed, so nothing was timed: {error}"
            ) from error

    def load(self, spec: SubjectSpec, stack: ExitStack) -> None:
        """Start a subject and check its outputs; it stays loaded if they passed."""
        name = spec.facts.name
        self._subjects[name] = spec.facts
        self._progress(f"loading {name}")
        try:
            process = self._start(spec, f"subject-{len(self._subjects)}")
        except BackendError as error:
            self._fail(name, error)
            return
        stack.enter_context(process)
        self._subjects[name] = process.facts
        if process.max_batch < max(self._batches):
            self._fail(name, f"it takes at most {process.max_batch} images, found batch {max(self._batches)}")
            process.close()
            return
        self._progress(f"checking the output of {name}")
        try:
            evidence = check_outputs(process, self._reference, self._batches, self._folder / "found.npy")
        except (BackendError, ParityError) as error:
            self._fail(name, error)
            process.close()
            return
        failure = None if evidence.passed else describe_failure(evidence)
        self._update(name, evidence=evidence, failure=failure)
        if evidence.passed:
            self._processes[name] = process
        else:
            process.close()

    def measure(self) -> Findings:
        """Time what passed."""
        has_stages = any(process.has_stages for process in self._processes.values())
        times = run_rounds(
            self._processes,
            self._batches,
            self._options,
            progress=self._progress,
            pause=self._note_memory,
        )
        for name, failure in times.failures.items():
            self._fail(name, failure)
            self._processes.pop(name).close()
        loads = self._put_loads(times)
        sustained = self._sustain()
        self._note_memory()
        warnings, other_load = tuple(self._monitor.warnings()), self._monitor.other_load()
        return Findings(
            tuple(self._subjects.values()), times, loads, sustained, has_stages, warnings, other_load
        )

    def _put_loads(self, times: Times) -> list[LoadSweep]:
        """Put rising loads on every subject that takes requests."""
        options, found = self._options, []
        for name, process in list(self._processes.items()) if options.load else []:
            if not process.spec.takes_load or process.facts.is_baseline:
                continue
            start = max(
                place.batch * len(series.samples_ms) / series.wall_s
                for place, series in times.series.items()
                if (place.subject, place.boundary) == (name, "end_to_end")
            )

            def put(rate: float, process: SubjectProcess = process, name: str = name) -> LoadPoint:
                self._progress(f"{name}: {rate:.3g} requests/s")
                answer = process.ask(
                    "put_load",
                    rate=rate,
                    arrivals=options.arrivals,
                    duration_s=_seconds_of_load(options, rate),
                    deadline_ms=options.deadline_ms,
                    seed=options.seed,
                )
                return LoadPoint.parse(answer, source=f"the process of {name}")

            with self._failing(name):
                found.append(
                    sweep(
                        put,
                        subject=name,
                        start=start,
                        rates=() if options.load == "auto" else options.load,
                        arrivals=options.arrivals,
                        deadline_ms=options.deadline_ms,
                        max_batch=process.max_batch,
                        max_wait_ms=options.gather_ms,
                    )
                )
        return found

    def _sustain(self) -> dict[str, tuple[int, RunLog]]:
        """Run every subject but the baselines without a pause."""
        seconds, batch = self._options.sustained_s, max(self._batches)
        found: dict[str, tuple[int, RunLog]] = {}
        for name, process in list(self._processes.items()) if seconds else []:
            if process.facts.is_baseline:
                continue
            self._progress(f"{name}: {seconds:g} s without a pause")
            file = self._folder / "sustained.npz"
            with self._failing(name):
                process.ask("sustain", batch=batch, duration_s=seconds, out=str(file))
                with np.load(file) as arrays:
                    found[name] = (batch, RunLog(arrays["starts_ns"], arrays["samples_ms"]))
        return found

    def _start(self, spec: SubjectSpec, log: str) -> SubjectProcess:
        return SubjectProcess(spec, self._files, self._folder / f"{log}.log")

    def _note_memory(self) -> None:
        """Read the memory of every process; the first time it is that of a loaded and warm one."""
        for name, process in self._processes.items():
            memory = read_memory(process.pid, earlier=self._memory.get(name), gpu=self._monitor.gpu)
            self._memory[name] = memory
            self._update(name, memory=memory)

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """A subject that fails here keeps the times that it has, and takes part no longer."""
        try:
            yield
        except BackendError as error:
            self._fail(name, error)
            self._processes.pop(name).close()

    def _fail(self, name: str, reason: object) -> None:
        self._update(name, failure=str(reason))

    def _update(self, name: str, **values: Any) -> None:
        self._subjects[name] = self._subjects[name].model_copy(update=values)


def _seconds_of_load(options: BenchOptions, rate: float) -> float:
    """How long a load is put on: as was asked for, else as long as by default, and longer where few requests come then."""
    if options.iterations is not None:
        return options.iterations / rate
    return options.duration_s or max(DEFAULT_DURATION_S, _ENOUGH_REQUESTS / rate)
