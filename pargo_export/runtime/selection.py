"""Choose the variant of a bundle and the backend that runs it, and say why the others are not chosen."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pargo_export.bundle import Bundle, Engine, Variant
from pargo_export.errors import BackendError, BundleError, MissingDependencyError
from pargo_export.runtime.backends import BACKENDS, Backend
from pargo_export.runtime.preferences import PREFERENCES, kind_of
from pargo_export.runtime.runner import Runner, RunnerOptions
from pargo_export.trt.module import TITLES

__all__ = ["Candidate", "Selection", "open_runner", "select"]

_LOGGER = logging.getLogger("pargo_export.runtime")
_COMPONENTS = ("all", "encoder", "projector")


@dataclass(frozen=True)
class Candidate:
    """A variant on a backend.

    Attributes:
        variant: The variant.
        backend: The backend.
        engine: The engine of the variant, on a backend that runs engines; else `None`.
    """

    variant: Variant
    backend: Backend
    engine: Engine | None = None

    def __str__(self) -> str:
        what = self.variant.name if self.engine is None else f"engine {self.engine.name}"
        return f"{what} on {self.backend.name}"


@dataclass(frozen=True)
class Selection:
    """What can run here.

    Attributes:
        candidates: What can run, the best first.
        refusals: Backends and variants that cannot, with the reason: `"bf16 on onnxruntime: ..."`.
    """

    candidates: tuple[Candidate, ...]
    refusals: tuple[str, ...]


def select(
    bundle: Bundle,
    *,
    backend: str = "auto",
    variant: str | None = None,
    engine: str | None = None,
    backends: Sequence[Backend] = BACKENDS,
) -> Selection:
    """List what can run, the best first, and why the rest cannot.

    Without a name, only variants of the whole model are considered; in a bundle that has none, only those
    of the encoder, else of the projector. A variant whose parity evidence failed is taken only when it
    is named, an engine whose evidence failed only when the engine is named, and so is a backend that is not
    `automatic`. Best is, in this order: an engine for this machine, among several one that was verified here, then the
    fastest by its measured time for each image; the order of `runtime.preferences`; a variant made for such a
    device; one that takes normalised pixels as well as pictures; the name.

    Args:
        bundle: The bundle.
        backend: Name of a backend, or `"auto"` for any.
        variant: Name of a variant; `None` for any.
        engine: Name of an engine; `None` for any.
        backends: The known backends.

    Raises:
        BackendError: There is no such backend, or it does not run the engine.
        BundleError: There is no such variant or engine, the engine is of another variant, or the bundle has none.
    """
    by_name = {item.name: item for item in backends}
    if backend != "auto" and backend not in by_name:
        raise BackendError(f"unknown backend {backend!r}; choose one of auto, {', '.join(sorted(by_name))}")
    automatic = [item for item in backends if item.automatic]
    wanted = automatic if backend == "auto" else [by_name[backend]]
    if engine is not None:
        chosen = _find_engine(bundle, engine, variant)
        variant = chosen.variant
        wanted = _that_run(chosen, wanted)
    variants = bundle.manifest.variants
    named = [bundle.variant(variant)] if variant is not None or not variants else list(variants.values())
    # A variant that cannot run must not be replaced by one that computes something else.
    component = next(name for name in _COMPONENTS if any(item.component == name for item in named))
    named = [item for item in named if item.component == component]

    candidates, refusals = [], []
    for runs_on in wanted:
        choices = _combine(bundle, runs_on, named, engine)
        obstacle = runs_on.find_obstacle() if choices else _no_engine(bundle)
        if obstacle:
            refusals.append(f"{runs_on.name}: {obstacle}")
            continue
        for choice in choices:
            reason = _find_refusal(
                bundle, choice, is_named=variant is not None, engine_is_named=engine is not None
            )
            if reason:
                refusals.append(reason)
            else:
                candidates.append(choice)
    candidates.sort(key=_rank)  # stable: what has no preference keeps the order of `backends`
    return Selection(tuple(candidates), tuple(refusals))


def open_runner(bundle: Bundle, selection: Selection, options: RunnerOptions) -> tuple[Candidate, Runner]:
    """Open the best candidate; if its backend fails, the best one of the next backend, with a logged warning.

    No second variant is tried on a backend that failed: a graph that does not load is for the user to see.

    Args:
        bundle: The bundle.
        selection: What can run.
        options: How to open it.

    Raises:
        BackendError: Nothing can run; the message has the reason of every refusal.
        BundleError: The graph of a candidate is not the one that the manifest describes.
        IntegrityError: A file of a candidate is not the one that the manifest describes.
    """
    refusals = list(selection.refusals)
    best = {choice.backend.name: choice for choice in reversed(selection.candidates)}
    for choice in [choice for choice in selection.candidates if best[choice.backend.name] is choice]:
        began = time.perf_counter()
        try:
            runner = _open(choice, bundle, options)
        except (BackendError, MissingDependencyError) as error:
            _LOGGER.warning("%s: %s", choice, error, extra=_fields("backend_failed", bundle, choice))
            refusals.append(f"{choice}: {error}")
        else:
            seconds = time.perf_counter() - began
            extra = {**_fields("opened", bundle, choice), "pargo_open_s": seconds}
            _LOGGER.info("%s: opened in %.2f s (%s)", choice, seconds, runner.description, extra=extra)
            return choice, runner
    reasons = refusals[0] if len(refusals) == 1 else "".join(f"\n  {reason}" for reason in refusals)
    raise BackendError(f"nothing can run bundle {bundle.path} here: {reasons}")


def _fields(event: str, bundle: Bundle, choice: Candidate) -> dict[str, str]:
    """Return the fields of a log record."""
    return {
        "pargo_event": event,
        "pargo_bundle": str(bundle.path),
        "pargo_backend": choice.backend.name,
        "pargo_variant": choice.variant.name,
        "pargo_engine": "" if choice.engine is None else choice.engine.name,
    }


def _find_engine(bundle: Bundle, name: str, variant: str | None) -> Engine:
    """Return the engine `name`, of the variant if one is named.

    Raises:
        BundleError: There is none.
    """
    engines = bundle.manifest.engines
    if name not in engines:
        choices = f"choose one of {', '.join(sorted(engines))}" if engines else _no_engine(bundle)
        raise BundleError(f"bundle {bundle.path}: there is no engine {name!r}; {choices}")
    if variant not in {None, engines[name].variant}:
        raise BundleError(
            f"bundle {bundle.path}: engine {name!r} is of variant {engines[name].variant!r}, not of {variant!r}; "
            "leave one of the two names out"
        )
    return engines[name]


def _that_run(engine: Engine, wanted: Sequence[Backend]) -> list[Backend]:
    """Return the backends that run an engine.

    Raises:
        BackendError: There is none.
    """
    found = [item for item in wanted if item.flavor == engine.flavor]
    if not found:
        names = ", ".join(item.name for item in wanted)
        raise BackendError(
            f"engine {engine.name!r} is of {TITLES[engine.flavor]}, which {names} does not run; leave the backend to "
            "'auto'"
        )
    return found


def _combine(
    bundle: Bundle, backend: Backend, variants: Sequence[Variant], engine: str | None
) -> list[Candidate]:
    """Return what a backend may have to run: every variant, or every engine of one of them."""
    if backend.flavor is None:
        return [Candidate(item, backend) for item in variants]
    by_name = {item.name: item for item in variants}
    return [
        Candidate(by_name[item.variant], backend, item)
        for item in bundle.manifest.engines.values()
        if item.flavor == backend.flavor and item.variant in by_name and engine in {None, item.name}
    ]


def _no_engine(bundle: Bundle) -> str:
    return f"the bundle has no engine for it; build one on this machine: pargo-export trt {bundle.path}"


def _find_refusal(bundle: Bundle, choice: Candidate, *, is_named: bool, engine_is_named: bool) -> str | None:
    """Return why a candidate cannot run, beginning with what it is; `None` if it can."""
    reason = choice.backend.find_model_obstacle(choice.variant, bundle.manifest.model)
    reason = reason or choice.backend.find_refusal(choice.variant)
    evidence = choice.variant.evidence
    if not reason and not is_named and evidence is not None and not evidence.passed:
        reason = "its parity with the reference failed; name the variant to run it nevertheless"
    if reason or choice.engine is None:
        return f"{choice}: {reason}" if reason else None
    refusal = choice.backend.find_engine_refusal(bundle, choice.engine, engine_is_named)
    return f"{choice.backend.name}: {refusal}" if refusal else None


def _open(choice: Candidate, bundle: Bundle, options: RunnerOptions) -> Runner:
    if choice.engine is not None:
        options = dataclasses.replace(options, engine=choice.engine.name)
    runner = choice.backend.open(bundle, choice.variant, options)
    try:
        if options.warmup:
            runner.warm_up()
    except BaseException:
        runner.close()
        raise
    return runner


def _rank(choice: Candidate) -> tuple[float | int | bool | str, ...]:
    pair = (choice.backend.name, kind_of(choice.variant))
    targets, target = choice.backend.targets, choice.variant.target
    place = PREFERENCES.index(pair) if pair in PREFERENCES else len(PREFERENCES)
    return (
        *_rank_engine(choice.engine, choice.backend.name, place),
        place,
        targets.index(target) if target in targets else len(targets),
        choice.variant.input != "float",
        choice.variant.name if choice.engine is None else choice.engine.name,
    )


def _rank_engine(engine: Engine | None, backend: str, place: int) -> tuple[float, ...]:
    """Rank engines within the block of their backend, and leave the order of everything else to `place`."""
    if engine is None:
        return (place, 0, 0)
    block = next(index for index, (name, _) in enumerate(PREFERENCES) if name == backend)
    timing = engine.timing
    return (block, engine.evidence is None, timing.median_ms / timing.batch if timing else math.inf)
