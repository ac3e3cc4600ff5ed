"""The `pargo::` function nodes in operators of OpenVINO, whose ONNX front end does not expand functions.

The maths is that of `graph/functions.py`, driven by the node's attributes alone. Letters of shapes: B batch,
T any tokens, Q query tokens (P partial, then G global), H heads, D head dim, W window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pargo_export.runtime.backends.openvino_module import require_openvino
from pargo_export.runtime.runner import Array

__all__ = ["attention_extensions"]

_DOMAIN = "pargo"


def attention_extensions() -> list[Any]:
    """Return what teaches a core of OpenVINO to read both operators.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    frontend = require_openvino("frontend.onnx")
    converters: dict[str, Callable[[Any], list[Any]]] = {
        "BlockDiagonalAttention": _convert_block_diagonal,
        "PartialGlobalAttention": _convert_partial_global,
    }
    return [frontend.ConversionExtension(name, _DOMAIN, convert) for name, convert in converters.items()]


def _convert_partial_global(node: Any) -> list[Any]:
    """Partial query i reads keys `[i*W, (i+1)*W)`, global queries read all."""
    step = _Step(node)
    ops = step.ops
    query, key, value = step.split_heads()
    partial_query, global_query = step.split_parts(query)
    parts = []
    if step.num_partial:
        windows = [0, 0, step.num_partial, step.window, -1]
        keys, values = (ops.reshape(tokens, windows, special_zero=True) for tokens in (key, value))
        scores = ops.matmul(keys, ops.unsqueeze(partial_query, -1), False, False)  # [B, H, P, W, 1]
        weights = ops.unsqueeze(step.softmax(ops.squeeze(scores, -1)), -2)  # [B, H, P, 1, W]
        parts.append(ops.squeeze(ops.matmul(weights, values, False, False), -2))  # [B, H, P, D]
    if step.num_global:
        parts.append(step.attend(global_query, key, value))
    return [step.merge_heads(parts)]


def _convert_block_diagonal(node: Any) -> list[Any]:
    """Partial tokens see partial tokens, within the window if there is one; global tokens see global tokens."""
    step = _Step(node)
    partial, global_ = zip(*map(step.split_parts, step.split_heads()), strict=True)
    parts = []
    if step.num_partial:
        parts.append(step.attend(*partial, window=step.window))
    if step.num_global:
        parts.append(step.attend(*global_))
    return [step.merge_heads(parts)]


class _Step:
    """One node: its attributes, and the operations that both operators are made of."""

    def __init__(self, node: Any) -> None:
        self.ops: Any = require_openvino("opset13")
        self.inputs = [node.get_input(index) for index in range(3)]
        self.num_heads, self.num_partial, self.num_global, self.window = (
            int(node.get_attribute(name)) for name in ("num_heads", "num_partial", "num_global", "window")
        )
        self.scale = float(node.get_attribute("scale")) if node.has_attribute("scale") else 1.0

    def split_heads(self) -> list[Any]:
        """Query, key and value: each `[B, T, H*D]` -> `[B, H, T, D]`; the query's B may be 1."""
        ops = self.ops
        heads = (ops.reshape(item, [0, 0, self.num_heads, -1], special_zero=True) for item in self.inputs)
        return [ops.transpose(item, [0, 2, 1, 3]) for item in heads]

    def split_parts(self, heads: Any) -> tuple[Any, Any]:
        """Partial and global tokens; what there is none of is not to be used."""
        if not (self.num_partial and self.num_global):
            return heads, heads
        split = self.ops.variadic_split(heads, 2, [self.num_partial, self.num_global])
        return split.output(0), split.output(1)

    def attend(self, query: Any, key: Any, value: Any, *, window: int = 0) -> Any:
        """Every query reads every key, or its `window` neighbours: `[B, H, T, D]`."""
        scores = self.ops.matmul(query, key, False, True)
        return self.ops.matmul(self.softmax(scores, window), value, False, False)

    def softmax(self, scores: Any, window: int = 0) -> Any:
        """Weights of scores, computed in float32, in the type of the value."""
        ops = self.ops
        if self.scale != 1:
            scores = ops.multiply(scores, ops.convert_like(ops.constant(np.float32(self.scale)), scores))
        logits = ops.convert(scores, "f32")
        if window:
            logits = ops.add(logits, ops.constant(_hide_far(self.num_partial, window)))
        return ops.convert_like(ops.softmax(logits, -1), self.inputs[2])

    def merge_heads(self, parts: list[Any]) -> Any:
        """`[B, H, T, D]` of each part -> the output of the node, `[B, Q, H*D]`."""
        ops = self.ops
        heads = parts[0] if len(parts) == 1 else ops.concat(parts, 2)
        return ops.reshape(ops.transpose(heads, [0, 2, 1, 3]), [0, 0, -1], special_zero=True).output(0)


def _hide_far(num_tokens: int, window: int) -> Array:
    """`[T, T]`, minus infinity where two tokens are more than half a window apart, else 0."""
    index = np.arange(num_tokens)
    near = np.abs(index[:, None] - index) <= window // 2
    return np.where(near, np.float32(0), np.float32(-np.inf))
