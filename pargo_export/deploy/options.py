"""What kind of engine to make, and from what."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pargo_export.bundle import Flavor
from pargo_export.deploy.target import Target
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import ConfigError

if TYPE_CHECKING:
    from pargo_export.checkpoint.vision_model import VisionLayer
    from pargo_export.preprocessing import PreprocessMode

__all__ = ["PRECISIONS", "CheckpointOptions", "DeployOptions", "Keep", "word_of"]

Keep: TypeAlias = Literal["all", "fastest"]

# Command-line word -> name in code, in the order in which they are offered.
PRECISIONS: dict[str, str] = {
    "int8": "int8",
    "int8-weight-only": "int8_weight_only",
    "fp8": "fp8",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
}
QUANTIZED = ("int8", "int8_weight_only", "fp8")
_DEFAULT_EXPORTED_BATCH = 8


def word_of(precision: str) -> str:
    """Return the command-line word of a precision: `int8-weight-only` of `int8_weight_only`."""
    return next((word for word, name in PRECISIONS.items() if name == precision), precision)


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint is read and exported; without meaning for a bundle.

    Attributes:
        config: JSON file or preset; by default what lies with the checkpoint.
        vision_checkpoint: EVA-CLIP checkpoint, if the checkpoint has no tower.
        vision_model: Instead: directory of `transformers` with the CLIP or SigLIP vision model that is the tower.
        vision_layer: Where its features are taken, as `open_vision_model` has it; `None`: the usual place.
        tiles: Rows and columns of tiles; by default the configuration's.
        preprocess: How pictures are brought to the input size; `auto`: as the vision model says, `pad` without one.

    Raises:
        ConfigError: There are two towers, or a layer without a vision model.
    """

    config: str | None = None
    vision_checkpoint: Path | None = None
    vision_model: Path | None = None
    vision_layer: VisionLayer | None = None
    tiles: tuple[int, int] | None = None
    preprocess: PreprocessMode | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.vision_model is not None and self.vision_checkpoint is not None:
            raise ConfigError(
                f"vision_model {self.vision_model} and vision_checkpoint {self.vision_checkpoint} are two towers; give one "
                "of them"
            )
        if self.vision_layer is not None and self.vision_model is None:
            raise ConfigError(
                f"vision_layer is {self.vision_layer!r}, and there is no vision_model; give one"
            )


@dataclass(frozen=True)
class DeployOptions:
    """Choices of one deployment.

    Attributes:
        precision: `int8`, `int8_weight_only`, `fp8`, `float16`, `bfloat16`, `float32`; the command-line words are
            taken too.
        variant: Build from this variant, whatever its precision; `None`: the one that fits precision and target.
        target: `auto` (this machine), `cuda`, `orin`, `thor`, `rtx`, `rtx:sm86,sm89`.
        flavor: `auto`, `tensorrt`, `rtx`.
        min_batch: Smallest batch of the one profile; `None`: 1.
        opt_batch: The batch that kernels are chosen for; `None`: the builder's default.
        max_batch: Largest batch; `None`: that of the variant.
        batches: Batch sizes with a profile each, instead of one profile.
        engine: Settings of the builder; flavor, capabilities and profiles of it are not read.
        calibration_data: Images to calibrate on, if the bundle has no calibration.
        calibration: Name of the calibration in the bundle.
        allow_random: Accept `random` as calibration data.
        base: Float variant to quantize; `None`: the one that suits the target.
        keep: `fastest`: of the engine and the FP16 one, keep only the faster; `all`: keep both.
        allow_below: Take a quantized graph, and keep an engine, that misses its accuracy limits, marked so.
        checkpoint: How a checkpoint is read.
        threads: CPU threads of calibration and quantization.

    Raises:
        ConfigError: A choice is unknown, or two contradict each other.
    """

    precision: str = "float16"
    variant: str | None = None
    target: str = "auto"
    flavor: Literal["auto"] | Flavor = "auto"
    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    batches: tuple[int, ...] = ()
    engine: EngineOptions = field(default_factory=EngineOptions)
    calibration_data: str | os.PathLike[str] | None = None
    calibration: str = "default"
    allow_random: bool = False
    base: str | None = None
    keep: Keep = "all"
    allow_below: bool = False
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", PRECISIONS.get(self.precision, self.precision))
        if self.precision not in PRECISIONS.values():
            raise ConfigError(f"precision is {self.precision!r}; known: {', '.join(PRECISIONS.values())}")
        if self.flavor not in {"auto", "tensorrt", "rtx"}:
            raise ConfigError(f"flavor is {self.flavor!r}; known: auto, tensorrt, rtx")
        if self.keep not in {"all", "fastest"}:
            raise ConfigError(f"keep is {self.keep!r}; known: all, fastest")
        if self.target != "auto":
            Target.parse(self.target)
        given = [item for item in (self.min_batch, self.opt_batch, self.max_batch) if item is not None]
        if self.batches and given:
            raise ConfigError(
                "batches make a profile each, and min_batch, opt_batch and max_batch one together; give one or the other"
            )
        if any(size < 1 for size in (*given, *self.batches)):
            raise ConfigError(f"batch sizes are {[*given, *self.batches]}; each must be at least 1")
        if given != sorted(given):
            raise ConfigError(
                f"min_batch, opt_batch, max_batch are {', '.join(map(str, given))}; expected ascending order"
            )

    @property
    def quantizes(self) -> bool:
        """Whether a precision was asked for that is not float throughout."""
        return self.precision in QUANTIZED

    @property
    def largest_batch(self) -> int:
        """The largest batch that was asked for; 1 if none was."""
        return max([self.max_batch or self.opt_batch or self.min_batch or 1, *self.batches])

    @property
    def exported_batch(self) -> int:
        """Largest batch of the graphs that are exported for this."""
        return max(_DEFAULT_EXPORTED_BATCH, self.largest_batch)
