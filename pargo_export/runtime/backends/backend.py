"""What the selection knows about a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pargo_export.bundle import Bundle, Engine, Flavor, Variant
from pargo_export.config import ModelConfig
from pargo_export.runtime.runner import Runner, RunnerOptions

__all__ = ["Backend"]


@dataclass(frozen=True)
class Backend:
    """One way to run a graph.

    Attributes:
        name: What the user calls it, for example `"onnxruntime"`.
        device: Where it runs, for example `"CPU"`.
        precisions: Precisions of graphs that it runs.
        unsupported: Precisions that it cannot run, with the reason.
        targets: Targets of variants that suit it best, the preferred first.
        automatic: Whether it may be chosen without being named; not where it computes less exactly than the
            graph says.
        find_obstacle: Returns why this machine cannot use the backend; `None` if it can, as far as can be
            told without a graph.
        find_variant_obstacle: Returns why it cannot run a variant of a precision that it knows: for what is in
            it, or on this machine; `None` if it can.
        find_model_obstacle: Returns why it cannot run a variant of such a model, whatever its precision; `None` if it
            can.
        open: Opens a variant; raises `BackendError` if that fails.
        flavor: For a backend that runs engines of TensorRT, not graphs: which of the two; else `None`.
        find_engine_refusal: For such a backend: returns why it must not load an engine of a bundle here; `None` if it
            may. The last argument: the engine was asked for by name, failed evidence is no obstacle.
    """

    name: str
    device: str
    precisions: tuple[str, ...]
    find_obstacle: Callable[[], str | None]
    open: Callable[[Bundle, Variant, RunnerOptions], Runner]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    automatic: bool = True
    find_variant_obstacle: Callable[[Variant], str | None] = lambda _: None
    find_model_obstacle: Callable[[Variant, ModelConfig], str | None] = lambda *_: None
    flavor: Flavor | None = None
    find_engine_refusal: Callable[[Bundle, Engine, bool], str | None] = lambda *_: None

    def find_refusal(self, variant: Variant) -> str | None:
        """Return why the backend cannot run a variant; `None` if it can."""
        if variant.precision in self.precisions:
            return self.find_variant_obstacle(variant)
        reason = self.unsupported.get(variant.precision, "this version does not know that precision")
        return f"{variant.precision} graphs do not run there: {reason}"
