"""Everything that `inspect` shows about a bundle, as data."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pargo_export.bundle import Bundle, Manifest, Variant
from pargo_export.config import ModelConfig
from pargo_export.errors import MissingDependencyError
from pargo_export.inspect.cost import CostTable, estimate_cost
from pargo_export.inspect.engines import EngineState, find_engine_states
from pargo_export.optional import require

__all__ = ["Geometry", "GraphSummary", "Summary", "count_nodes", "summarize"]

_ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Geometry:
    """The sizes that follow from the configuration.

    Attributes:
        input_height: Pixels, all tiles together.
        input_width: Pixels, all tiles together.
        num_tiles: T.
        num_image_tokens: N.
        num_visual_tokens: Tokens handed to the LLM.
        num_partial_tokens: P.
        num_global_tokens: G.
        window_size: W = N / P; 0 without partial tokens.
    """

    input_height: int
    input_width: int
    num_tiles: int
    num_image_tokens: int
    num_visual_tokens: int
    num_partial_tokens: int
    num_global_tokens: int
    window_size: int

    @classmethod
    def of(cls, config: ModelConfig) -> Geometry:
        """Derive the sizes."""
        height, width = config.input_size
        projector = config.projector
        return cls(
            input_height=height,
            input_width=width,
            num_tiles=config.num_tiles,
            num_image_tokens=config.num_image_tokens,
            num_visual_tokens=config.num_visual_tokens,
            num_partial_tokens=projector.num_partial_tokens,
            num_global_tokens=projector.num_global_tokens,
            window_size=config.window_size,
        )


@dataclass(frozen=True)
class GraphSummary:
    """One variant.

    Attributes:
        variant: What the manifest says about it.
        size_bytes: Its graph and the weights beside it.
        nodes: Nodes by operator, the most frequent first (`pargo::` operators with their domain); `None`
            if they could not be counted.
        problem: Why not; empty if they were.
        cost: What one run costs.
    """

    variant: Variant
    size_bytes: int
    nodes: dict[str, int] | None
    problem: str
    cost: CostTable


@dataclass(frozen=True)
class Summary:
    """A bundle.

    Attributes:
        path: The directory.
        manifest: Its manifest.
        geometry: The sizes that follow from the configuration.
        reference: What one run of the reference costs, with its dense masks, in float32.
        graphs: The variants, by name.
        engines: Whether the engines can run here, by name.
    """

    path: Path
    manifest: Manifest
    geometry: Geometry
    reference: CostTable
    graphs: dict[str, GraphSummary]
    engines: dict[str, EngineState]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary in the types of JSON."""
        return {
            "path": str(self.path),
            "manifest": self.manifest.model_dump(mode="json"),
            "geometry": asdict(self.geometry),
            "reference_cost": asdict(self.reference),
            "graphs": {
                name: {
                    "size_bytes": graph.size_bytes,
                    "nodes": graph.nodes,
                    "problem": graph.problem,
                    "cost": asdict(graph.cost),
                }
                for name, graph in self.graphs.items()
            },
            "engines": {name: asdict(state) for name, state in self.engines.items()},
        }


def summarize(bundle: Bundle | str | os.PathLike[str], *, batch: int = 1) -> Summary:
    """Describe a bundle.

    Args:
        bundle: The bundle, or its directory.
        batch: Images at once in the cost tables.

    Raises:
        BundleError: There is no valid bundle.
        IntegrityError: A file is missing or has another size.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    manifest = bundle.manifest
    return Summary(
        path=bundle.path,
        manifest=manifest,
        geometry=Geometry.of(manifest.model),
        reference=estimate_cost(manifest.model, batch=batch),
        graphs={
            name: _summarize_variant(bundle, variant, batch)
            for name, variant in sorted(manifest.variants.items())
        },
        engines=find_engine_states(bundle),
    )


def count_nodes(graph: Path) -> dict[str, int]:
    """Count the nodes of a graph by operator, the most frequent first; function bodies are not entered.

    Raises:
        MissingDependencyError: `onnx` is not installed.
        ValueError: The file is no ONNX graph.
        OSError: The file cannot be read.
    """
    onnx = require("onnx", extra="export", purpose="count the nodes of a graph")
    try:
        model = onnx.load(graph, load_external_data=False)
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{graph.name} is not an ONNX graph ({error})") from error
    names = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type) for node in model.graph.node
    )
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0])))


def _summarize_variant(bundle: Bundle, variant: Variant, batch: int) -> GraphSummary:
    files = bundle.manifest.files
    nodes, problem = None, ""
    try:
        nodes = count_nodes(bundle.file(variant.graph))
    except (MissingDependencyError, OSError, ValueError) as error:
        problem = str(error)
    quantization = variant.quantization
    float_precision = quantization.float_precision if quantization else variant.precision
    cost = estimate_cost(
        bundle.manifest.model,
        batch=batch,
        element_bytes=_ELEMENT_BYTES.get(float_precision, 1),
        component=variant.component,
        attention=variant.attention,
        rewrites=variant.rewrites,
        quantized=quantization.quantized if quantization else (),
        quantizes_activations=variant.precision != "int8_weight_only",
    )
    size = sum(files[path].size_bytes for path in bundle.manifest.files_of(variant.graph))
    return GraphSummary(variant, size, nodes, problem, cost)
