"""How a bundle looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TypeAlias

from rich.console import RenderableType
from rich.text import Text

from pargo_export.bundle import Calibration, Manifest
from pargo_export.cli import layout
from pargo_export.cli.engine_rows import engine_rows
from pargo_export.cli.quantization import calibration_rows, quantization_rows
from pargo_export.config import VisionConfig
from pargo_export.graph.check import summarize_evidence
from pargo_export.inspect import BlockCost, CostTable, EngineState, GraphSummary, Summary

__all__ = ["render_summary"]

Row: TypeAlias = tuple[str, ...]


def render_summary(summary: Summary, variant: str | None = None) -> Iterator[RenderableType]:
    """Yield the parts of the description, from the model to its files.

    Args:
        summary: The bundle.
        variant: Show this variant only; by default all, and the cost of the first one.
    """
    manifest = summary.manifest
    graphs = [graph for name, graph in summary.graphs.items() if variant in {None, name}]
    yield f"{summary.path}, schema {manifest.schema_version}, written by pargo-export {manifest.written_by}"
    yield layout.heading("Model")
    yield layout.facts(_model(summary))
    for graph in graphs:
        yield layout.heading(f"Variant {graph.variant.name}")
        yield layout.facts(_variant(graph, manifest))
    for name, engine in sorted(manifest.engines.items()):
        if variant in {None, engine.variant}:
            yield layout.heading(f"Engine {name}, of variant {engine.variant}")
            yield layout.facts([*engine_rows(engine), *_state(summary.engines[name])])
    for calibration in _calibrations(manifest, variant):
        yield layout.heading(f"Calibration {calibration.name}")
        size = sum(manifest.files[path].size_bytes for path in calibration.files)
        yield layout.facts(calibration_rows(calibration, size))
    yield layout.heading(f"Cost of a run, batch {summary.reference.batch}")
    yield _cost_table(summary.reference, graphs[0] if graphs else None)
    yield Text("  GFLOP: matrix products, multiply-add = 2. MB: weights and activations, once.", style="dim")
    yield layout.heading("Files")
    rows = [
        (path, layout.size(record.size_bytes), record.sha256[:16], record.stage)
        for path, record in sorted(manifest.files.items())
    ]
    yield layout.table(("file", "size", "sha256", "stage"), rows)


def _state(state: EngineState) -> Iterator[tuple[str, str]]:
    yield "stale", "the graph of its variant has changed since" if state.is_stale else ""
    yield (
        "runs here",
        f"no: {state.refusal}" if state.refusal else "yes, as far as can be told before it is loaded",
    )
    yield "sidecar", state.problem


def _calibrations(manifest: Manifest, variant: str | None) -> list[Calibration]:
    """Return the calibrations: all, or the one that a variant was made with."""
    if variant is None:
        return list(manifest.calibrations.values())
    made = manifest.variants[variant].quantization
    found = manifest.calibrations.get((made and made.calibration) or "")
    return [] if found is None else [found]


def _model(summary: Summary) -> Iterator[tuple[str, str]]:
    manifest, sizes = summary.manifest, summary.geometry
    vision, projector, source = manifest.model.vision, manifest.model.projector, manifest.source
    layers = f"{projector.num_layers} layers of {projector.hidden_size} channels, {projector.num_heads} heads"
    if projector.kind == "pargo":
        yield "projector", f"ParGo, {layers}"
        tokens = f"{sizes.num_partial_tokens} partial tokens with windows of {sizes.window_size} image tokens"
        yield "queries", f"{tokens}, {sizes.num_global_tokens} global tokens"
    elif projector.has_queries:
        yield "projector", f"Q-Former, {layers}, {sizes.num_global_tokens} global tokens"
    else:
        yield (
            "projector",
            f"{projector.kind}, {projector.tokens_per_group} image tokens make one visual token",
        )
    blocks = f"{vision.num_layers} blocks of {vision.width} channels, {vision.num_heads} heads"
    if isinstance(vision, VisionConfig):
        yield "tower", f"EVA-02, {blocks}, SwiGLU {vision.hidden_width}, patches of {vision.patch_size}"
    else:
        name = {"clip": "CLIP", "siglip": "SigLIP"}[vision.kind]
        yield "tower", f"{name}, {blocks}, feed-forward {vision.hidden_width}, patches of {vision.patch_size}"
        behind = ", behind its last norm" if vision.has_final_norm else ""
        yield "features", f"layer {vision.vision_layer} of {vision.num_published_layers}{behind}"
    height, width = sizes.input_height, sizes.input_width
    grid = f"{manifest.model.tile_rows} x {manifest.model.tile_columns} tiles"
    yield "image", f"{height} x {width} pixels, {grid}, {sizes.num_image_tokens} image tokens"
    yield "visual tokens", f"{sizes.num_visual_tokens} of {projector.llm_hidden_size} channels"
    yield "preprocessing", manifest.preprocessing.mode
    files = ", ".join(source.files) or "a model in memory"
    yield (
        "checkpoint",
        f"{files}, {layout.count(source.num_parameters)} parameters, {', '.join(source.dtypes)}",
    )
    yield "weights", f"sha256 {source.sha256[:16]}"
    yield "left out", ", ".join(f"{name}: {number} tensors" for name, number in source.ignored.items())
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())


def _variant(graph: GraphSummary, manifest: Manifest) -> Iterator[tuple[str, str]]:
    variant = graph.variant
    form = f"opset {variant.opset}, {variant.precision}, attention {variant.attention}, for {variant.target}"
    yield "graph", f"{variant.component}, {form}, {layout.size(graph.size_bytes)}"
    used = _calibrations(manifest, variant.name)
    yield from quantization_rows(variant, used[0] if used else None)
    yield "input", ", ".join(map(layout.tensor, variant.signature.inputs))
    yield "output", ", ".join(map(layout.tensor, variant.signature.outputs))
    if graph.nodes is None:
        yield "nodes", f"not counted: {graph.problem}"
    else:
        kinds = ", ".join(f"{name} {number}" for name, number in graph.nodes.items())
        yield "nodes", f"{sum(graph.nodes.values())}: {kinds}"
    total = graph.cost.total()
    moved = layout.size(total.weight_bytes + total.activation_bytes)
    yield "cost", f"{layout.figure(total.flops / 1e9)} GFLOP, {moved} moved, batch {graph.cost.batch}"
    yield "rewrites", ", ".join(variant.rewrites)
    evidence = variant.evidence
    if evidence is None:
        yield "parity", "not measured"
    else:
        yield "parity", f"{'passed' if evidence.passed else 'FAILED'}, {summarize_evidence(evidence)}"
        yield "note", "; ".join(evidence.notes)


def _cost_table(reference: CostTable, graph: GraphSummary | None) -> RenderableType:
    """Lay the reference beside one variant."""
    tables = {"reference": reference}
    if graph is not None:
        tables[graph.variant.name] = graph.cost
    columns = ["block", "parameters"]
    for name in tables:
        columns += [f"{name}\nGFLOP", "\nMB"]
    return layout.table(columns, _cost_rows(list(tables.values())))


def _cost_rows(tables: list[CostTable]) -> Iterator[Row]:
    """Yield a line for every run of blocks that cost the same in all tables, then the total."""
    found = [{block.name: block for block in table.blocks} for table in tables]
    lines = [(name, _cells(name, found)) for name in found[0]]
    for cells, group in groupby(lines, key=lambda line: (line[0].rstrip("0123456789"), line[1])):
        names = [name for name, _ in group]
        label = names[0].replace("_", " ")
        if len(names) > 1:
            label = f"{label}-{names[-1].rpartition('_')[2]}, each"
        yield (label, *cells[1])
    totals = [{"total": table.total()} for table in tables]
    yield ("total", *_cells("total", totals))


def _cells(name: str, tables: list[dict[str, BlockCost]]) -> Row:
    cells = [layout.count(tables[0][name].parameters)]
    for table in tables:
        block = table.get(name)
        if block is None:
            cells += ["", ""]
        else:
            moved = block.weight_bytes + block.activation_bytes
            cells += [layout.figure(block.flops / 1e9), layout.figure(moved / 1e6)]
    return tuple(cells)
