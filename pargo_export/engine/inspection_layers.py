"""The JSON of TensorRT's engine inspector, read into layers; no TensorRT needed.

Three generations of it are understood:

- TensorRT 10 with detailed profiling: `Inputs` and `Outputs` with `Format/Datatype`, `TacticName`, `Metadata`.
- TensorRT 11: the type in a field of its own, `Datatype` or `DataType`.
- without detailed profiling: names only. What a kernel computes in is not in them.

The metadata of a layer name the ONNX nodes that were fused into it: `[ONNX Layer: a][ONNX Layer: b]`, in some
versions with a record separator between them, and for the body of a function `[ONNX Layer: inner | caller (Type)]`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pargo_export.errors import EngineError

__all__ = ["Kernel", "onnx_nodes", "parse_inspector"]

_NODE = re.compile(r"\[ONNX Layer: (.+?)\](?=\[ONNX Layer: |[\x1e\x1f]|\s*$)", re.DOTALL)
_CALL_TYPE = re.compile(r" \([^()]*\)$")
_OPAQUE = re.compile(r"^\{?ForeignNode\[")
# Kinds of kernels that multiply matrices; `gemm`, `fc`, `conv` and `kgen` come from TensorRT's graph compiler.
_MULTIPLIES = re.compile(r"gemm|^fc$|conv|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
_MULTIPLIES_BY_TACTIC = re.compile(r"gemm|xmma|imma|hmma|qmma|wgmma", re.IGNORECASE)
# Not `attention`: modules are called so.
_ATTENTION = re.compile(r"_f?mha|flash", re.IGNORECASE)
# What a kernel's name says that it multiplies, e.g. sm80_xmma_gemm_i8f16_i8i32_f16_tn_n_..., ampere_h16816gemm_...
_TACTICS = (
    ("fp8", re.compile(r"e4m3|e5m2|_fp8|qmma", re.IGNORECASE)),
    ("int8", re.compile(r"(?<![a-z])i8(?:i8|i32|f16|bf16|f32)?_|i8816|i16832|imma|int8", re.IGNORECASE)),
    ("bfloat16", re.compile(r"bf16", re.IGNORECASE)),
    ("float16", re.compile(r"f16f16|_f16f32|fp16|h884|h1688|h16816|hgemm", re.IGNORECASE)),
    ("float32", re.compile(r"tf32|f32f32|sgemm|fp32", re.IGNORECASE)),
)
_TYPES = (
    ("int8", re.compile(r"\bint8\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bfp8|e4m3|float8", re.IGNORECASE)),
    ("bfloat16", re.compile(r"\bbfloat16\b|\bbf16\b", re.IGNORECASE)),
    ("float16", re.compile(r"\bhalf\b|\bfp16\b|\bfloat16\b", re.IGNORECASE)),
    ("float32", re.compile(r"\bfloat\b|\bfp32\b|\bfloat32\b", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Kernel:
    """One layer of an engine.

    Attributes:
        name: Its name.
        kind: TensorRT's word for it, for example `gemm`, `kgen`, `CaskConvolution`, `Reformat`.
        nodes: ONNX nodes that were fused into it.
        tactic: Name of the kernel; empty if it is not told.
        types: Types of its inputs, as far as they are told.
    """

    name: str
    kind: str = ""
    nodes: tuple[str, ...] = ()
    tactic: str = ""
    types: tuple[str, ...] = ()

    @property
    def is_opaque(self) -> bool:
        """Whether it is a region whose kernels are not listed."""
        return bool(_OPAQUE.match(self.name)) and not self.tactic

    @property
    def is_attention(self) -> bool:
        """Whether it is one kernel for a whole attention."""
        return bool(_ATTENTION.search(self.tactic or self.name)) and not self.is_opaque

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices, by its kind or by the name of its kernel; a fused attention is apart."""
        if self.is_opaque or self.is_attention:
            return False
        return bool(_MULTIPLIES.search(self.kind) or _MULTIPLIES_BY_TACTIC.search(self.tactic))

    @property
    def precision(self) -> str | None:
        """What it multiplies: by the name of the kernel, else by the type of its first input; `None`: not told."""
        named = _first_match(_TACTICS, self.tactic)
        return named or (self.types[0] if self.types else None)


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Return the ONNX nodes that metadata name, once each; for the body of a function, the node that calls it."""
    callers = (entry.rsplit(" | ", 1)[-1] for entry in _NODE.findall(metadata or ""))
    return tuple(dict.fromkeys(_CALL_TYPE.sub("", caller) for caller in callers))


def parse_inspector(text: str) -> tuple[Kernel, ...]:
    """Read what `EngineInspector.get_engine_information(LayerInformationFormat.JSON)` returned.

    Raises:
        EngineError: It is not such a JSON.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise EngineError(
            f"the engine inspector gave no JSON ({error}); its text begins with {text[:80]!r}: report it with the "
            "version of TensorRT"
        ) from error
    layers = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(layers, list):
        raise EngineError(
            "the engine inspector's JSON has no list 'Layers'; report it with the version of TensorRT"
        )
    return tuple(_kernel(layer) for layer in layers)


def _kernel(layer: Any) -> Kernel:
    if not isinstance(layer, dict):
        return Kernel(str(layer))
    inputs = layer.get("Inputs") or []
    types = (_type_of(tensor) for tensor in inputs if isinstance(tensor, dict))
    return Kernel(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        nodes=onnx_nodes(str(layer.get("Metadata", ""))),
        tactic=str(layer.get("TacticName", "")),
        types=tuple(kind for kind in types if kind is not None),
    )


def _type_of(tensor: dict[str, Any]) -> str | None:
    for field in ("Datatype", "DataType", "Format/Datatype", "Format"):
        found = _first_match(_TYPES, str(tensor.get(field, "")))
        if found is not None:
            return found
    return None


def _first_match(patterns: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> str | None:
    return next((name for name, pattern in patterns if pattern.search(text)), None)
