"""The bodies of the `pargo::` function nodes, as ONNX model-local functions.

    pargo::PartialGlobalAttention(query [B|1,Q,C], key [B,N,C], value [B,N,C]) -> [B,Q,C]
        num_heads, num_partial, num_global, window (image tokens a partial token sees), scale
    pargo::BlockDiagonalAttention(query [B,Q,C], key [B,Q,C], value [B,Q,C]) -> [B,Q,C]
        num_heads, num_partial, num_global, window (neighbours a partial token sees, 0 = all), scale

A body is the mask-free expansion of `pargo_kernels.reference` in standard operators and is driven by the
node's attributes alone. A runtime that has a kernel of that name uses it; every other one inlines the body.
Parts that a model has no use for (no partial tokens, scale folded away, no cascaded window) are left
out of its body, so that inlining adds no idle nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.parser

__all__ = ["FUNCTION_DOMAIN", "FUNCTION_DOMAIN_VERSION", "attention_functions"]

FUNCTION_DOMAIN = "pargo"
FUNCTION_DOMAIN_VERSION = 1

_SIZE = """
  {name}_scalar = Constant <value_int: int = @{name}> ()
  {name}_size = Reshape ({name}_scalar, infer)"""

_HEADS = """
  {name}_split = Reshape ({name}, split_shape)
  {name}_heads = Transpose <perm = [0, 2, 1, 3]> ({name}_split)"""

_SCALE = """
  {part}_factor = CastLike (scale_value, {part}_raw)
  {part}_scores = Mul ({part}_raw, {part}_factor)"""

_SOFTMAX = """
  {part}_logits = Cast <to = 1> ({part}_scores)
  {part}_weights_f32 = Softmax <axis = -1> ({part}_logits)
  {part}_weights = CastLike ({part}_weights_f32, value)"""

_WINDOWS = """
  window_shape = Concat <axis = 0> (keep_two, num_partial_size, window_size, infer)
  key_windows = Reshape (key_heads, window_shape)
  value_windows = Reshape (value_heads, window_shape)
  partial_column = Unsqueeze (partial_query, axis_last)
  partial_products = MatMul (key_windows, partial_column)
  partial_raw = Squeeze (partial_products, axis_last){softmax}
  partial_row = Unsqueeze (partial_weights, axis_before_last)
  partial_sums = MatMul (partial_row, value_windows)
  partial_output = Squeeze (partial_sums, axis_before_last)"""

_DENSE = """
  {part}_key_columns = Transpose <perm = [0, 1, 3, 2]> ({part}_key)
  {part}_raw = MatMul ({part}_query, {part}_key_columns){softmax}
  {part}_output = MatMul ({part}_weights, {part}_value)"""

# |i - j| <= window // 2, or any distance if the window is 0; from the attributes alone.
_NEIGHBOURS = """
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  two = Constant <value_int = 2> ()
  radius = Div (window_scalar, two)
  position = Range (zero, num_partial_scalar, one)
  position_column = Unsqueeze (position, axis_last)
  distance_signed = Sub (position_column, position)
  distance = Abs (distance_signed)
  within = LessOrEqual (distance, radius)
  no_limit = Equal (window_scalar, zero)
  near = Or (within, no_limit)
  hidden_value = Constant <value_float = -inf> ()
  hidden = CastLike (hidden_value, partial_all)
  partial_raw = Where (near, partial_all, hidden)"""


def _softmax(part: str, *, scaled: bool) -> str:
    scale = _SCALE if scaled else "\n  {part}_scores = Identity ({part}_raw)"
    return (scale + _SOFTMAX).format(part=part)


def _dense(part: str, *, scaled: bool, neighbours: bool = False) -> str:
    text = _DENSE.format(part=part, softmax="{softmax}")
    if neighbours:
        text = text.replace("partial_raw = MatMul", "partial_all = MatMul")
    return text.format(softmax=(_NEIGHBOURS if neighbours else "") + _softmax(part, scaled=scaled))


def _prologue(sizes: Iterable[str], *, scaled: bool) -> str:
    constants = """
  axis_last = Constant <value_ints = [-1]> ()
  axis_before_last = Constant <value_ints = [-2]> ()
  keep_two = Constant <value_ints = [0, 0]> ()
  infer = Constant <value_ints = [-1]> ()"""
    text = constants + "".join(_SIZE.format(name=name) for name in sizes)
    if scaled:
        text += "\n  scale_value = Constant <value_float: float = @scale> ()"
    text += "\n  split_shape = Concat <axis = 0> (keep_two, num_heads_size, infer)"
    return text + "".join(_HEADS.format(name=name) for name in ("query", "key", "value"))


def _block_sizes(sizes: list[str]) -> str:
    joined = ", ".join(f"{size}_size" for size in sizes)
    return f"\n  block_sizes = Concat <axis = 0> ({joined})" if sizes else ""


def _epilogue(parts: list[str]) -> str:
    joined = ", ".join(f"{part}_output" for part in parts)
    return f"""
  output_heads = Concat <axis = 2> ({joined})
  output_split = Transpose <perm = [0, 2, 1, 3]> (output_heads)
  merged_shape = Concat <axis = 0> (keep_two, infer)
  output = Reshape (output_split, merged_shape)"""


def _split(name: str, parts: list[str]) -> str:
    """Cut heads into the partial and the global block; a single block is passed on."""
    if len(parts) == 1:
        return f"\n  {parts[0]}_{name} = Identity ({name}_heads)"
    return f"\n  partial_{name}, global_{name} = Split <axis = 2> ({name}_heads, block_sizes)"


def _function(name: str, body: str, attributes: list[str], opset: int, summary: str) -> onnx.FunctionProto:
    text = (
        f'<domain: "{FUNCTION_DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{name} <{', '.join(attributes)}> (query, key, value) => (output) {{{body}\n}}"
    )
    function = onnx.parser.parse_function(text)
    function.doc_string = summary
    return function


def attention_functions(
    *, num_partial: int, num_global: int, scaled: bool, cascaded: bool, opset: int
) -> list[onnx.FunctionProto]:
    """Return the two functions for a model with these parts.

    Args:
        num_partial: P; with 0 the partial part is left out of the bodies.
        num_global: G; with 0 the global part is left out of the bodies.
        scaled: Whether the nodes carry a `scale` other than 1.
        cascaded: Whether some layer limits the partial tokens' self-attention window.
        opset: Version of the standard operators in the bodies.
    """
    parts = [part for part, size in (("partial", num_partial), ("global", num_global)) if size]
    attributes = ["num_heads", "num_partial", "num_global", "window", *(["scale"] if scaled else [])]
    blocks = ["num_partial", "num_global"] if len(parts) == 2 else []

    cross_sizes = ["num_heads", *(blocks or ["num_partial"]), "window"] if num_partial else ["num_heads"]
    cross = _prologue(cross_sizes, scaled=scaled) + _block_sizes(blocks) + _split("query", parts)
    if num_partial:
        cross += _WINDOWS.format(softmax=_softmax("partial", scaled=scaled))
    if num_global:
        dense = _dense("global", scaled=scaled)
        cross += dense.replace("global_key)", "key_heads)").replace("global_value)", "value_heads)")
    cross += _epilogue(parts)

    diagonal_sizes = ["num_heads", *blocks]
    if cascaded and num_partial:
        diagonal_sizes += ["window", *([] if blocks else ["num_partial"])]
    diagonal = _prologue(diagonal_sizes, scaled=scaled) + _block_sizes(blocks)
    diagonal += "".join(_split(name, parts) for name in ("query", "key", "value"))
    for part in parts:
        diagonal += _dense(part, scaled=scaled, neighbours=cascaded and part == "partial")
    diagonal += _epilogue(parts)
    return [
        _function(
            "PartialGlobalAttention",
            cross,
            attributes,
            opset,
            "Cross-attention: partial query i reads keys [i*window, (i+1)*window), global queries read all.",
        ),
        _function(
            "BlockDiagonalAttention",
            diagonal,
            attributes,
            opset,
            "Self-attention: partial tokens among themselves, global tokens among themselves.",
        ),
    ]
