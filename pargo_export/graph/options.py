"""What kind of graph to make."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pargo_export.bundle import VARIANT_NAME
from pargo_export.errors import ConfigError
from pargo_export.preprocessing import PreprocessMode
from pargo_export.rewrite.attention_forms import ATTENTION_FORMS, AttentionForm
from pargo_export.rewrite.attention_op import ATTENTION_OPSET
from pargo_export.rewrite.registry import TARGETS, Target

__all__ = ["COMPONENTS", "PRECISIONS", "Component", "ExportOptions", "FloatPrecision"]

FloatPrecision = Literal["float32", "float16", "bfloat16"]
Component = Literal["all", "encoder", "projector"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
# Command-line word -> name in code.
PRECISIONS: dict[str, FloatPrecision] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

DEFAULT_OPSET = 20  # Gelu is one operator from here on
MIN_OPSET = 18
MAX_OPSET = 23
BFLOAT16_OPSET = 22  # Conv takes bfloat16 from here on

# Model-local functions are parsed by ONNX Runtime and TensorRT-RTX (tried). JetPack 6 carries TensorRT 10.3,
# for which that is not established, so its graphs have the same expansion inlined.
TARGET_ATTENTION: dict[Target, AttentionForm] = {
    "cpu": "fused",
    "cuda": "fused",
    "orin": "structured",
    "thor": "fused",
    "rtx": "fused",
}


@dataclass(frozen=True)
class ExportOptions:
    """Choices of one export.

    Attributes:
        precision: `float32`, `float16`, `bfloat16`; the command-line words `fp32`, `fp16`, `bf16` are taken too.
        target: Device family; decides the defaults of `attention` and the rewrites.
        attention: Attention form of the projector, or `auto`: the target's.
        component: `all` (pixels to visual tokens), `encoder` (pixels to image features), `projector`.
        input_kind: `float` (normalised pixels) or `uint8` (normalisation is in the graph).
        preprocess: How pictures are brought to the model's input; `auto`: as the directory of the vision model says,
            `pad` without one.
        max_batch: Largest batch; 1 makes the batch axis static.
        opset: ONNX opset, or `None`: the lowest that the form and the precision allow, at least 20.
        rewrites: Run these instead of the target's list.
        without_rewrites: Leave these out.
        name: Name of the variant, or `None`: made from precision, component and input.

    Raises:
        ConfigError: A choice is unknown, or two contradict each other.
    """

    precision: str = "float32"
    target: Target = "cpu"
    attention: AttentionForm | Literal["auto"] = "auto"
    component: Component = "all"
    input_kind: Literal["float", "uint8"] = "float"
    preprocess: PreprocessMode | Literal["auto"] = "auto"
    max_batch: int = 8
    opset: int | None = None
    rewrites: tuple[str, ...] | None = None
    without_rewrites: tuple[str, ...] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", PRECISIONS.get(self.precision, self.precision))
        for field, known in (
            ("precision", tuple(PRECISIONS.values())),
            ("target", TARGETS),
            ("attention", (*ATTENTION_FORMS, "auto")),
            ("component", COMPONENTS),
            ("input_kind", ("float", "uint8")),
            ("preprocess", (*get_args(PreprocessMode), "auto")),
        ):
            if getattr(self, field) not in known:
                raise ConfigError(f"{field} is {getattr(self, field)!r}; known: {', '.join(known)}")
        if self.name is not None and not re.fullmatch(VARIANT_NAME, self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
            )
        if self.max_batch < 1:
            raise ConfigError(f"max_batch is {self.max_batch}; it must be at least 1")
        if self.component == "projector" and self.input_kind == "uint8":
            raise ConfigError(
                "component 'projector' takes image features, so input_kind 'uint8' means nothing"
            )
        if self.attention_form == "attention_op" and self.resolved_opset < ATTENTION_OPSET:
            raise ConfigError(f"attention 'attention_op' needs opset {ATTENTION_OPSET}, found {self.opset}")
        if self.precision == "bfloat16" and self.resolved_opset < BFLOAT16_OPSET:
            raise ConfigError(f"precision 'bfloat16' needs opset {BFLOAT16_OPSET}, found {self.opset}")
        if not MIN_OPSET <= self.resolved_opset <= MAX_OPSET:
            raise ConfigError(f"opset is {self.opset}; supported: {MIN_OPSET} to {MAX_OPSET}")

    @property
    def attention_form(self) -> AttentionForm:
        """The attention form, with `auto` resolved by the target."""
        return TARGET_ATTENTION[self.target] if self.attention == "auto" else self.attention

    @property
    def resolved_opset(self) -> int:
        """The opset, with `None` resolved by form and precision."""
        if self.opset is not None:
            return self.opset
        if self.attention_form == "attention_op":
            return ATTENTION_OPSET
        return BFLOAT16_OPSET if self.precision == "bfloat16" else DEFAULT_OPSET

    @property
    def variant_name(self) -> str:
        """Name of the variant in the bundle: `fp16`, `fp32-encoder`, `fp16-uint8`, ..."""
        if self.name is not None:
            return self.name
        word = next(word for word, precision in PRECISIONS.items() if precision == self.precision)
        parts = [word]
        if self.component != "all":
            parts.append(self.component)
        if self.input_kind == "uint8":
            parts.append("uint8")
        return "-".join(parts)

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the graph, with defaults resolved, for the bundle's recipe hash."""
        return asdict(self) | {"attention": self.attention_form, "opset": self.resolved_opset}
