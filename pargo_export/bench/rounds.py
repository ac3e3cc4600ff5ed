"""Time several subjects in turns: A B A B, so that whatever the machine does meanwhile befalls all of them.

Every round goes through the batch sizes, the concurrencies and the boundaries, and at each of them through the subjects,
which begin in another order every time. What one subject does at one such place is a block; only one subject works at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from pargo_export.bench.options import BenchOptions
from pargo_export.bench.records import Boundary, Clock
from pargo_export.errors import BackendError

__all__ = ["Place", "Series", "Timed", "Times", "run_rounds"]

# What a worker times: a boundary, or the stages on a device, which come as three of them.
Timing: TypeAlias = Boundary | Literal["stages"]

_ALONE: tuple[Timing, ...] = ("preprocess", "run", "end_to_end", "stages")
_TOGETHER: tuple[Timing, ...] = ("run", "end_to_end")


class Place(NamedTuple):
    """What a series of times is of."""

    subject: str
    batch: int
    concurrency: int
    boundary: Boundary
    clock: Clock


@dataclass
class Series:
    """Times of one place.

    Attributes:
        samples_ms: Runs, in the order in which they were made.
        rounds: The round of each.
        spans_ns: Begin and end of each block, `time.perf_counter_ns`.
    """

    samples_ms: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    spans_ns: list[tuple[int, int]] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Duration of all blocks."""
        return sum(end - start for start, end in self.spans_ns) / 1e9


class Timed(Protocol):
    """A subject as the rounds see it; `SubjectProcess` is one."""

    @property
    def has_stages(self) -> bool:
        """Whether it tells the times of its stages."""

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Give a command and wait for the answer."""


@dataclass(frozen=True)
class Times:
    """What the rounds found.

    Attributes:
        series: Times by place; none of subjects that failed.
        failures: Subjects that failed on the way, with the reason.
    """

    series: dict[Place, Series]
    failures: dict[str, str]


def run_rounds(
    subjects: Mapping[str, Timed],
    batches: Sequence[int],
    options: BenchOptions,
    *,
    progress: Callable[[str], None] = lambda _: None,
    pause: Callable[[], object] = lambda: None,
) -> Times:
    """Warm up, then time every subject in every round.

    A subject that fails takes part no longer; the others go on.

    Args:
        subjects: By name.
        batches: Batch sizes.
        options: Rounds, runs or seconds, warm-up, concurrencies.
        progress: Called with a short text before each round.
        pause: Called after the warm-up and after each round, when nothing works.
    """
    active = dict(subjects)
    series: dict[Place, Series] = {}
    failures: dict[str, str] = {}
    num_rounds = options.effective_rounds

    def ask(do: str, name: str, **values: Any) -> dict[str, Any]:
        """Ask a subject; if it fails it is out."""
        try:
            return active[name].ask(do, **values)
        except BackendError as error:
            failures[name] = str(error)
            del active[name]
            return {}

    progress("warming up")
    if options.num_warmup:
        for where in _places(batches, options.concurrencies):
            for name in _taking_part(active, where):
                ask("warm_up", name, **where, runs=options.num_warmup)
    pause()
    for index in range(num_rounds):
        progress(f"round {index + 1} of {num_rounds}")
        length = _length_of_block(options, index)
        for position, where in enumerate(_places(batches, options.concurrencies)):
            names = _taking_part(active, where)
            first = (index + position) % max(1, len(names))
            for name in names[first:] + names[:first]:
                _add(series, name, where, index, ask("time", name, **where, **length))
        pause()
    kept = {place: found for place, found in series.items() if place.subject not in failures}
    return Times(kept, failures)


def _places(batches: Sequence[int], concurrencies: Sequence[int]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for concurrency in concurrencies:
            for boundary in _ALONE if concurrency == 1 else _TOGETHER:
                yield {"batch": batch, "concurrency": concurrency, "boundary": boundary}


def _taking_part(active: Mapping[str, Timed], where: Mapping[str, Any]) -> list[str]:
    return [name for name, subject in active.items() if where["boundary"] != "stages" or subject.has_stages]


def _length_of_block(options: BenchOptions, index: int) -> dict[str, float]:
    """Return the runs, or seconds, of a block; runs are shared out so that all rounds together make the number."""
    num_rounds = options.effective_rounds
    if options.iterations is None:
        return {"duration_s": (options.effective_duration_s or 0) / num_rounds}
    return {
        "iterations": options.iterations * (index + 1) // num_rounds
        - options.iterations * index // num_rounds
    }


def _add(
    series: dict[Place, Series],
    name: str,
    where: Mapping[str, Any],
    index: int,
    answer: Mapping[str, Any],
) -> None:
    """Add the times of a block; the answer of a subject that failed has none."""
    clock: Clock = "cuda-events" if where["boundary"] == "stages" else "host"
    for boundary, samples in answer.get("samples_ms", {}).items():
        place = Place(name, where["batch"], where["concurrency"], boundary, clock)
        found = series.setdefault(place, Series())
        found.samples_ms += samples
        found.rounds += [index] * len(samples)
        found.spans_ns.append((answer["start_ns"], answer["end_ns"]))
