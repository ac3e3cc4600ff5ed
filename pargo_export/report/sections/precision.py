"""The precision of every product of the network, and why it is not a lower one."""

from __future__ import annotations

import re
from dataclasses import replace
from string import ascii_lowercase

from pargo_export.bundle import Variant
from pargo_export.inspect import group_kept
from pargo_export.report import text
from pargo_export.report.context import Context
from pargo_export.report.parts import Note, PrecisionMap, PrecisionRow, Section

__all__ = ["precision"]

_BLOCK = re.compile(r"^(tower\.blocks\.\d+|projector\.layers\.\d+)\.(.+)$")
_SHORT = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8_weight_only": "int8w",
}
_CLASSES = {"int8": "low", "fp8": "low", "int8_weight_only": "mid", "float16": "half", "bfloat16": "half"}
_TITLES = {"tower.blocks": "Tower", "projector.layers": "Projector", "": "Everything else"}


def precision(context: Context) -> Section | None:
    """Show the precision map of each variant that was measured; `None` without the bundle."""
    if context.bundle is None:
        return None
    variants = context.bundle.manifest.variants
    used = dict.fromkeys(
        subject.variant for subject in context.result.subjects if subject.variant in variants
    )
    maps = [_map(variants[name]) for name in used if name is not None]
    drawn = [index for index, found in enumerate(maps) if found.parts]
    for index in drawn[1:]:  # one is enough to begin with
        maps[index] = replace(maps[index], is_open=False)
    if not maps:
        return None
    legend = Note(
        "int8, fp8: weights and activations in 8 bits. int8w: 8-bit weights, float products. "
        "attention.core: queries times keys. A letter names the reason why a product stayed in float. Norms, softmax and sums are in float everywhere."
    )
    lead = "Rows are blocks, columns the linears and attention products in them."
    return Section("precision", "Precision map", (*maps, legend), lead)


def _map(variant: Variant) -> PrecisionMap:
    quantization = variant.quantization
    if quantization is None or not (quantization.quantized or quantization.kept):
        return PrecisionMap(variant.name, f"every product in {variant.precision}; nothing is quantized")
    groups = group_kept(quantization.kept)
    marks = {reason: _mark(index) for index, reason in enumerate(groups)}
    low, kept = variant.precision, quantization.float_precision
    cells = {path: (_short(low), "", _CLASSES.get(low, "low")) for path in quantization.quantized}
    cells |= {
        path: (_short(kept), marks[reason], _CLASSES.get(kept, "full"))
        for path, reason in quantization.kept.items()
    }
    smoothed = f", {len(quantization.smoothed)} smoothed" if quantization.smoothed else ""
    return PrecisionMap(
        variant.name,
        f"{len(quantization.quantized)} products in {low}, {len(quantization.kept)} in {kept}{smoothed}; recipe "
        f"{quantization.recipe or 'none'}, dialect {quantization.dialect}",
        _parts(cells),
        tuple(
            (mark, f"{reason} ({text.plural(len(groups[reason]), 'product')})")
            for reason, mark in marks.items()
        ),
    )


def _parts(
    cells: dict[str, tuple[str, str, str]],
) -> tuple[tuple[str, tuple[str, ...], tuple[PrecisionRow, ...]], ...]:
    """Arrange products by kind of block: a row for each block, a column for each name within a block."""
    kinds: dict[str, dict[str, dict[str, tuple[str, str, str]]]] = {kind: {} for kind in _TITLES}
    for path, cell in cells.items():
        match = _BLOCK.match(path)
        if match:
            block, name = match.groups()
            kinds[block.rpartition(".")[0]].setdefault(block, {})[name] = cell
        else:
            kinds[""].setdefault(path, {})["product"] = cell
    parts = []
    for kind, blocks in kinds.items():
        if not blocks:
            continue
        columns = tuple(dict.fromkeys(name for row in blocks.values() for name in row))
        ordered = sorted(blocks, key=_number) if kind else list(blocks)
        table = tuple(
            PrecisionRow(
                _row_name(block, kind), tuple(blocks[block].get(name, ("", "", "none")) for name in columns)
            )
            for block in ordered
        )
        parts.append((_TITLES[kind], columns, table))
    return tuple(parts)


def _number(block: str) -> int:
    return int(block.rpartition(".")[2])


def _row_name(block: str, kind: str) -> str:
    return f"{'block' if kind.startswith('tower') else 'layer'} {_number(block)}" if kind else block


def _short(name: str) -> str:
    return _SHORT.get(name, text.escape(name))


def _mark(index: int) -> str:
    """`a`, `b`, ... `z`, `aa`, ..."""
    letters = ""
    while True:
        letters = ascii_lowercase[index % 26] + letters
        index = index // 26 - 1
        if index < 0:
            return letters
