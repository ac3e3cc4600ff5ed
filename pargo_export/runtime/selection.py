"""Choose the variant of a bundle and the backend that runs it, and say why the others are not chosen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pargo_export.bundle import Bundle, Variant
from pargo_export.errors import BackendError, MissingDependencyError
from pargo_export.runtime.backends import BACKENDS, Backend
from pargo_export.runtime.preferences import PREFERENCES, kind_of
from pargo_export.runtime.runner import Runner, RunnerOptions

__all__ = ["Candidate", "Selection", "open_runner", "select"]

_LOGGER = logging.getLogger("pargo_export.runtime")
_COMPONENTS = ("all", "encoder", "projector")


@dataclass(frozen=True)
class Candidate:
    """A variant on a backend."""

    variant: Variant
    backend: Backend

    def __str__(self) -> str:
        return f"{self.variant.name} on {self.backend.name}"


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
    backends: Sequence[Backend] = BACKENDS,
) -> Selection:
    """List what can run, the best first, and why the rest cannot.

    Without a name, only variants of the whole model are considered; in a bundle that has none, only those
    of the encoder, else of the projector. A variant whose parity evidence failed is taken only when it
    is named, and so is a backend that is not `automatic`. Best is, in this order: the order of
    `runtime.preferences`; a variant made for such a device; one that takes normalised pixels as well as
    pictures; the name.

    Args:
        bundle: The bundle.
        backend: Name of a backend, or `"auto"` for any.
        variant: Name of a variant; `None` for any.
        backends: The known backends.

    Raises:
        BackendError: There is no such backend.
        BundleError: There is no such variant, or the bundle has none.
    """
    by_name = {item.name: item for item in backends}
    if backend != "auto" and backend not in by_name:
        raise BackendError(f"unknown backend {backend!r}; choose one of auto, {', '.join(sorted(by_name))}")
    automatic = [item for item in backends if item.automatic]
    wanted = automatic if backend == "auto" else [by_name[backend]]
    variants = bundle.manifest.variants
    named = [bundle.variant(variant)] if variant is not None or not variants else list(variants.values())
    # A variant that cannot run must not be replaced by one that computes something else.
    component = next(name for name in _COMPONENTS if any(item.component == name for item in named))
    named = [item for item in named if item.component == component]

    candidates, refusals, usable = [], [], []
    for runs_on in wanted:
        obstacle = runs_on.find_obstacle()
        if obstacle:
            refusals.append(f"{runs_on.name}: {obstacle}")
        else:
            usable.append(runs_on)
    for choice in (Candidate(item, runs_on) for item in named for runs_on in usable):
        reason = choice.backend.find_refusal(choice.variant)
        evidence = choice.variant.evidence
        if not reason and variant is None and evidence is not None and not evidence.passed:
            reason = "its parity with the reference failed; name the variant to run it nevertheless"
        if reason:
            refusals.append(f"{choice}: {reason}")
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
        try:
            return choice, _open(choice, bundle, options)
        except (BackendError, MissingDependencyError) as error:  # noqa: PERF203 - a handful of backends
            _LOGGER.warning("%s: %s", choice, error)
            refusals.append(f"{choice}: {error}")
    reasons = refusals[0] if len(refusals) == 1 else "".join(f"\n  {reason}" for reason in refusals)
    raise BackendError(f"nothing can run bundle {bundle.path} here: {reasons}")


def _open(choice: Candidate, bundle: Bundle, options: RunnerOptions) -> Runner:
    runner = choice.backend.open(bundle, choice.variant, options)
    try:
        if options.warmup:
            runner.warm_up()
    except BaseException:
        runner.close()
        raise
    return runner


def _rank(choice: Candidate) -> tuple[int, int, bool, str]:
    pair = (choice.backend.name, kind_of(choice.variant))
    targets, target = choice.backend.targets, choice.variant.target
    return (
        PREFERENCES.index(pair) if pair in PREFERENCES else len(PREFERENCES),
        targets.index(target) if target in targets else len(targets),
        choice.variant.input != "float",
        choice.variant.name,
    )
