"""What a benchmark measures, and how."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pargo_export.bench.arrivals import Arrivals
from pargo_export.errors import ConfigError

__all__ = ["BASELINES", "DEFAULT_BATCHES", "DEFAULT_DURATION_S", "BenchOptions"]

# Baselines by name; any other name is the path of a bundle.
BASELINES = ("torch", "torch-compile", "onnxruntime")
# Those of them that fit are measured where no batch sizes are given.
DEFAULT_BATCHES = (1, 2, 4, 8)
DEFAULT_DURATION_S = 5.0


@dataclass(frozen=True)
class BenchOptions:
    """Choices of one benchmark.

    Every combination of `backends` and `variants` that runs here is measured, interleaved with all others and with the
    baselines. Ratios are taken against the baselines, or without any against the first that was asked for.

    Attributes:
        backends: Backends, as `Runtime.open` names them.
        variants: Variants of the bundle; empty: on each backend the one that suits it best.
        combinations: Backend and variant of each subject, in place of all combinations of `backends` and `variants`.
        engine: TensorRT engine, by name; `None`: the best one.
        batches: Images in one run; empty: those of 1, 2, 4, 8 that everything can take.
        concurrencies: Callers at the same time, each waiting for its answer.
        iterations: Timed runs of each subject, batch size, concurrency and boundary, over all rounds.
        duration_s: Seconds of timed runs instead; with neither, 5.
        num_rounds: Rounds; in each, every subject is measured in turn. Fewer than five leave no way to tell how much
            the machine changes from round to round.
        num_warmup: Untimed runs of each before the first round.
        inputs: Pictures, or folders of them; empty: the photograph of the package, in variations.
        baselines: `torch`, `torch-compile`, `onnxruntime` (a plain export of the checkpoint), or paths of bundles.
        checkpoint: Of the bundle; the first three baselines need it.
        load: Offered loads of the load mode, requests a second; `"auto"`: up to saturation; empty: no load mode.
        arrivals: How requests of the load mode arrive: `poisson` (independent users) or `fixed` (a camera).
        deadline_ms: Time that an answer may take in the load mode; `None`: any.
        gather_ms: How long the runtime waits for requests to run together in the load mode.
        sustained_s: Seconds of a run without a pause at the end; `None`: none.
        threads: CPU threads of a run; `None`: every physical core.
        seed: Of bootstrap and arrivals.

    Raises:
        ConfigError: A choice is out of range, or two contradict each other.
    """

    backends: tuple[str, ...] = ("auto",)
    variants: tuple[str, ...] = ()
    combinations: tuple[tuple[str, str], ...] = ()
    engine: str | None = None
    batches: tuple[int, ...] = ()
    concurrencies: tuple[int, ...] = (1,)
    iterations: int | None = None
    duration_s: float | None = None
    num_rounds: int = 10
    num_warmup: int = 3
    inputs: tuple[Path, ...] = ()
    baselines: tuple[str, ...] = ()
    checkpoint: Path | None = None
    load: tuple[float, ...] | Literal["auto"] = ()
    arrivals: Arrivals = "poisson"
    deadline_ms: float | None = None
    gather_ms: float = 0.0
    sustained_s: float | None = None
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _require_distinct("backends", self.backends)
        _require_distinct("variants", self.variants, may_be_empty=True)
        _require_distinct("combinations", self.combinations, may_be_empty=True)
        _require_distinct("baselines", self.baselines, may_be_empty=True)
        _require_distinct("batches", self.batches, may_be_empty=True)
        _require_distinct("concurrencies", self.concurrencies)
        for name, sizes in (("batches", self.batches), ("concurrencies", self.concurrencies)):
            if any(size < 1 for size in sizes):
                raise ConfigError(f"{name}: found {', '.join(map(str, sizes))}, expected numbers from 1 on")
        if self.iterations is not None and self.duration_s is not None:
            raise ConfigError("iterations and duration_s both say how long to measure; give one of them")
        for name, least in (("iterations", 1), ("num_rounds", 1), ("num_warmup", 0), ("threads", 1)):
            value: int | None = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}: found {value}, expected at least {least}")
        for name in ("duration_s", "deadline_ms", "sustained_s"):
            _require_positive(name, getattr(self, name))
        self._check_load()
        needing = [name for name in self.baselines if name in BASELINES]
        if needing and self.checkpoint is None:
            raise ConfigError(
                f"baseline {', '.join(needing)} runs the model as it was trained, which a bundle does not hold; give the "
                "checkpoint that the bundle was made from (--checkpoint)"
            )

    def _check_load(self) -> None:
        for rate in () if self.load == "auto" else self.load:
            _require_positive("load", rate)
        if not (math.isfinite(self.gather_ms) and self.gather_ms >= 0):
            raise ConfigError(f"gather_ms: found {self.gather_ms}, expected milliseconds from 0 on")
        if self.arrivals not in {"poisson", "fixed"}:
            raise ConfigError(f"arrivals: found {self.arrivals!r}, expected 'poisson' or 'fixed'")
        if not self.load and (self.deadline_ms is not None or self.gather_ms):
            raise ConfigError("deadline_ms and gather_ms are settings of the load mode; give load too")

    @property
    def effective_rounds(self) -> int:
        """Rounds that are made: never more than there are timed runs."""
        return self.num_rounds if self.iterations is None else min(self.num_rounds, self.iterations)

    @property
    def effective_duration_s(self) -> float | None:
        """Seconds of timed runs of each; `None` if `iterations` decide."""
        return None if self.iterations is not None else self.duration_s or DEFAULT_DURATION_S


def _require_distinct(name: str, values: Iterable[object], *, may_be_empty: bool = False) -> None:
    found = list(values)
    if len(set(found)) != len(found):
        raise ConfigError(f"{name}: found {', '.join(map(str, found))}, where one is named twice")
    if not found and not may_be_empty:
        raise ConfigError(f"{name}: found none, expected at least one")


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}: found {value}, expected more than 0")
