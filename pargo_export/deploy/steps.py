"""The steps of a plan, as data."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pargo_export.deploy.target import GpuTarget

__all__ = [
    "Action",
    "BuildStep",
    "CalibrateStep",
    "CompareStep",
    "ExportStep",
    "PrepareStep",
    "QuantizeStep",
    "Step",
    "VerifyStep",
]

Action: TypeAlias = Literal["export", "calibrate", "quantize", "build", "verify", "compare", "prepare"]


@dataclass(frozen=True)
class _Step(ABC):
    """What all steps have in common.

    Attributes:
        name: What the step makes or looks at: a variant, a calibration, an engine's variant.
    """

    action: ClassVar[Action]
    name: str

    @abstractmethod
    def describe(self) -> str:
        """Say what the step does, without its action and name."""


@dataclass(frozen=True)
class ExportStep(_Step):
    """Make a float graph from the checkpoint.

    Attributes:
        precision: `float32`, `float16`, `bfloat16`.
        target: Decides attention form and rewrites.
        max_batch: Largest batch of the graph.
    """

    action: ClassVar[Action] = "export"
    precision: str
    target: Literal["cpu"] | GpuTarget
    max_batch: int

    def describe(self) -> str:
        """See `_Step`."""
        return f"the checkpoint in {self.precision}, for {self.target}, up to {self.max_batch} images at once"


@dataclass(frozen=True)
class CalibrateStep(_Step):
    """Observe activations on images.

    Attributes:
        data: The images.
    """

    action: ClassVar[Action] = "calibrate"
    data: str | os.PathLike[str]

    def describe(self) -> str:
        """See `_Step`."""
        return f"on {os.fspath(self.data)}"


@dataclass(frozen=True)
class QuantizeStep(_Step):
    """Make a quantized graph, or one in half precision, from a float graph of the bundle.

    Attributes:
        precision: `int8`, `int8_weight_only`, `fp8`, `float16`, `bfloat16`.
        target: Device family.
        base: Float variant to start from; `None`: the one that suits the target.
        calibration: Name of the calibration.
    """

    action: ClassVar[Action] = "quantize"
    precision: str
    target: GpuTarget
    base: str | None
    calibration: str

    def describe(self) -> str:
        """See `_Step`."""
        source = "the best float graph" if self.base is None else self.base
        return f"{source} to {self.precision}, for {self.target}, with calibration {self.calibration}"


@dataclass(frozen=True)
class BuildStep(_Step):
    """Build an engine from a variant.

    Attributes:
        title: What builds it, for people.
    """

    action: ClassVar[Action] = "build"
    title: str

    def describe(self) -> str:
        """See `_Step`."""
        return f"an engine, with {self.title}"


@dataclass(frozen=True)
class VerifyStep(_Step):
    """Run an engine and hold it against the float32 variant."""

    action: ClassVar[Action] = "verify"

    def describe(self) -> str:
        """See `_Step`."""
        return "its engine against the float32 variant, on this device"


@dataclass(frozen=True)
class CompareStep(_Step):
    """Time two engines in turns.

    Attributes:
        baseline: The FP16 variant.
        drops_slower: Whether the slower engine is removed.
    """

    action: ClassVar[Action] = "compare"
    baseline: str
    drops_slower: bool

    def describe(self) -> str:
        """See `_Step`."""
        after = ", keep the faster" if self.drops_slower else ""
        return f"its time with that of {self.baseline}{after}"


@dataclass(frozen=True)
class PrepareStep(_Step):
    """See that the variant will be taken on another device, as far as that can be seen here.

    Attributes:
        target: The device.
        baseline: The FP16 variant that the device compares with, if there is one.
    """

    action: ClassVar[Action] = "prepare"
    target: GpuTarget
    baseline: str | None

    def describe(self) -> str:
        """See `_Step`."""
        return f"for a build on {self.target}"


Step: TypeAlias = (
    ExportStep | CalibrateStep | QuantizeStep | BuildStep | VerifyStep | CompareStep | PrepareStep
)
