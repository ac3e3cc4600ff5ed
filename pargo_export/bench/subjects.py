"""Which graphs and baselines are measured, and at which batch sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pargo_export.agreement import REFERENCE_BACKEND, find_reference
from pargo_export.bench.baselines import prepare_baseline
from pargo_export.bench.options import BASELINES, DEFAULT_BATCHES, BenchOptions
from pargo_export.bench.process import SubjectSpec
from pargo_export.bench.records import Subject
from pargo_export.bundle import Bundle, Variant
from pargo_export.errors import BackendError, ConfigError
from pargo_export.graph.comparison import PARITY_LIMITS
from pargo_export.runtime.selection import Candidate, select

if TYPE_CHECKING:
    from pargo_export.bench.records import SubjectKind

__all__ = ["Plan", "choose_batches", "plan_reference", "plan_subjects"]

_OPEN_RUNTIME = "pargo_export.bench.openers:open_runtime"
_OPEN_LIBRARY = "pargo_export.bench.openers:open_library"
_LIBRARY = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        subjects: Baselines last.
        left_out: Combinations that were asked for and cannot run here, with the reason.
    """

    subjects: tuple[SubjectSpec, ...]
    left_out: tuple[str, ...] = ()


def plan_subjects(bundle: Bundle, options: BenchOptions) -> Plan:
    """Choose what to measure.

    Args:
        bundle: The bundle.
        options: Backends, variants and baselines.

    Raises:
        BackendError: Nothing of what was asked for can run here, or a backend is unknown.
        BundleError: There is no such variant or engine, or a baseline is no bundle.
        ConfigError: A variant takes no pictures.
    """
    found: dict[str, SubjectSpec] = {}
    left_out = []
    combinations: Iterable[tuple[str, str | None]] = options.combinations or product(
        options.backends, options.variants or (None,)
    )
    for backend, variant in combinations:
        selection = select(bundle, backend=backend, variant=variant, engine=options.engine)
        if not selection.candidates:
            left_out.append(f"{variant or 'any variant'} on {backend}: {'; '.join(selection.refusals)}")
            continue
        spec = _describe_candidate(bundle, selection.candidates[0], options)
        found.setdefault(spec.facts.name, spec)
    if not found:
        raise BackendError(f"nothing of what is to be measured can run here: {'; '.join(left_out)}")
    for name in options.baselines:
        spec = (
            _describe_library(bundle, name, options)
            if name in BASELINES
            else _describe_bundle(Path(name), options)
        )
        found[spec.facts.name] = spec
    return Plan(tuple(found.values()), tuple(left_out))


def choose_batches(bundle: Bundle, subjects: Sequence[SubjectSpec], options: BenchOptions) -> tuple[int, ...]:
    """Return the batch sizes, ascending: those that were asked for, or the usual ones that every graph can take.

    Raises:
        ConfigError: A graph was not made for one that was asked for.
    """
    largest = {
        spec.facts.name: _max_batch(
            bundle if not spec.facts.is_baseline else Bundle.open(spec.facts.bundle), spec
        )
        for spec in subjects
        if spec.facts.kind == "runtime"
    }
    for name, limit in largest.items():
        too_large = [size for size in options.batches if size > limit]
        if too_large:
            raise ConfigError(
                f"batches: found {', '.join(map(str, too_large))}, but {name} was made for at most {limit} images in one "
                "run; choose smaller ones, or export it for larger ones (--max-batch)"
            )
    smallest = min(largest.values())
    return tuple(sorted(options.batches)) or tuple(size for size in DEFAULT_BATCHES if size <= smallest)


def plan_reference(bundle: Bundle, variant: str, options: BenchOptions) -> SubjectSpec:
    """Return what the outputs are held against: the float32 variant in ONNX Runtime.

    Raises:
        BundleError: There is no such variant.
    """
    reference = find_reference(bundle, bundle.variant(variant))
    return _specify(bundle, reference, REFERENCE_BACKEND, options)


def _describe_candidate(bundle: Bundle, choice: Candidate, options: BenchOptions) -> SubjectSpec:
    engine = choice.engine.name if choice.engine else None
    return _specify(bundle, choice.variant, choice.backend.name, options, engine=engine)


def _describe_bundle(path: Path, options: BenchOptions) -> SubjectSpec:
    """Return the best graph of another bundle, as a baseline."""
    bundle = Bundle.open(path)
    selection = select(bundle)
    if not selection.candidates:
        raise BackendError(f"baseline {path}: nothing can run it here: {'; '.join(selection.refusals)}")
    spec = _describe_candidate(bundle, selection.candidates[0], options)
    name = f"{spec.facts.name} of {path}"
    facts = spec.facts.model_copy(update={"name": name, "is_baseline": True})
    return dataclasses.replace(spec, facts=facts, arguments=spec.arguments | {"name": name})


def _describe_library(bundle: Bundle, name: str, options: BenchOptions) -> SubjectSpec:
    """Return a baseline that runs the checkpoint."""
    return SubjectSpec(
        facts=Subject(
            name=name,
            kind=cast("SubjectKind", name),  # one of BASELINES
            is_baseline=True,
            bundle=str(bundle.path),
            precision="float32",
            backend=_LIBRARY[name],
        ),
        factory=_OPEN_LIBRARY,
        arguments={
            "kind": name,
            "bundle": str(bundle.path),
            "checkpoint": str(options.checkpoint),
            "threads": options.threads,
            **prepare_baseline(name, bundle=bundle.path, checkpoint=options.checkpoint),
        },
        imports=(_LIBRARY[name],),
    )


def _specify(
    bundle: Bundle, variant: Variant, backend: str, options: BenchOptions, *, engine: str | None = None
) -> SubjectSpec:
    if variant.component == "projector":
        raise ConfigError(
            f"variant {variant.name!r} is the projector alone and takes image features, but a benchmark starts from "
            "pictures; measure a variant of the whole model or of the encoder"
        )
    name = f"{variant.name} on {backend}" if engine is None else f"{engine} on {backend}"
    return SubjectSpec(
        facts=Subject(
            name=name,
            kind="runtime",
            bundle=str(bundle.path),
            variant=variant.name,
            precision=variant.precision,
            backend=backend,
            engine=engine,
        ),
        factory=_OPEN_RUNTIME,
        arguments={
            "name": name,
            "bundle": str(bundle.path),
            "backend": backend,
            "variant": variant.name,
            "engine": engine,
            "threads": options.threads,
            "streams": max(options.concurrencies),
            "gather_ms": options.gather_ms,
        },
        imports=("pargo_export.runtime", _module_of(backend)),
        limits=variant.evidence.limits if variant.evidence else PARITY_LIMITS[variant.float_precision],
        takes_load=True,
    )


def _module_of(backend: str) -> str:
    """Return the library that a backend imports when it opens a graph."""
    return {"cuda": "torch", "tensorrt-rtx": "tensorrt_rtx"}.get(backend, backend.partition("-")[0])


def _max_batch(bundle: Bundle, spec: SubjectSpec) -> int:
    facts = spec.facts
    if facts.engine is not None:
        return bundle.manifest.engines[facts.engine].max_batch
    return bundle.variant(facts.variant).max_batch
