"""The export command's work: deploy module -> ONNX -> parity gate -> bundle."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle, BundleTransaction, Evidence, Manifest, Variant
from pargo_export.errors import BundleError, IntegrityError
from pargo_export.graph.boundaries import detach_boundaries, write_probe
from pargo_export.graph.comparison import require_parity
from pargo_export.graph.component import ComponentModule, boundary_names, component_signature
from pargo_export.graph.naming import name_by_module
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.parity import ParityCase, measure_parity, reference_cases
from pargo_export.graph.provenance import checkpoint_source, export_recipe, tool_versions, weights_sha256
from pargo_export.graph.save import describe, save_graph
from pargo_export.graph.translate import translate
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.overrides import with_overrides
from pargo_export.preprocessing import ImageSource, PictureDefaults, PreprocessSpec
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.fold_normalization import fold_normalization
from pargo_export.rewrite.registry import select_rewrites
from pargo_export.rewrite.rewrite import Rewrite, RewriteResult

__all__ = ["ExportResult", "export_onnx"]

_STAGE = "graph"
_SMALL_MODEL_PARAMETERS = 50_000_000
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """What `export_onnx` did.

    Attributes:
        bundle: The bundle, with the variant in it.
        variant: The variant that was asked for.
        reused: The bundle already held exactly this variant, so nothing was done.
        rewrites: How often each rewrite applied; empty if reused.
    """

    bundle: Bundle
    variant: Variant
    reused: bool
    rewrites: tuple[RewriteResult, ...] = ()


def export_onnx(
    model: VisualFrontEnd,
    bundle_dir: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    photographs: Sequence[ImageSource] = (PHOTOGRAPH,),
    force: bool = False,
    progress: Progress = lambda _: None,
    **overrides: Any,
) -> ExportResult:
    """Export `model` to ONNX and put it into a bundle, if it passes the parity gate.

    Args:
        model: The float32 reference (`load_checkpoint`); left as it is.
        bundle_dir: A new directory, or a bundle of the same model to add a variant to.
        options: What kind of graph.
        photographs: Pictures for the parity gate, beside random ones.
        force: Replace a bundle of another model, and redo a variant that is up to date.
        progress: Called with a short text at the start of each step.
        **overrides: Fields of `ExportOptions`, for example `precision="fp16"`.

    Returns:
        The bundle and the variant; `reused` if it was there already.

    Raises:
        ConfigError: An option is unknown or two contradict each other.
        ExportError: PyTorch, the ONNX checker or ONNX Runtime refuses the graph.
        ParityError: The graph does not compute what the reference computes; no variant is written.
        BundleError: The directory holds something else or cannot be written.
    """
    options = with_overrides(options or ExportOptions(), overrides, kind="export")
    spec = (model.pictures or PictureDefaults()).spec(options.preprocess, model.config.input_size)
    options = replace(options, preprocess=spec.mode)
    rewrites = _select(options, spec)
    progress("hashing weights")
    digest = weights_sha256(model)
    recipe = export_recipe(digest, model.config, options, spec, [rewrite.name for rewrite in rewrites])

    with BundleTransaction(bundle_dir) as transaction:
        manifest = _base_manifest(transaction.previous, model, spec, digest, force=force)
        graph = f"onnx/{options.variant_name}.onnx"
        existing = manifest.variants.get(options.variant_name)
        if existing is not None and existing.recipe_sha256 == recipe and not force:
            bundle = _open_if_intact(bundle_dir, manifest.files_of(graph))
            if bundle is not None:
                return ExportResult(bundle, existing, reused=True)
        cases = _cases(model, options, spec, photographs, progress)
        files, evidence, results = _make_graph(
            model, options, rewrites, cases, path=transaction.stage(graph), progress=progress
        )
        names = [f"onnx/{path.name}" for path in files]
        parents = [f"checkpoint:{digest}"]
        records = {name: transaction.record(name, stage=_STAGE, parents=parents) for name in names}
        variant = Variant(
            name=options.variant_name,
            precision=options.precision,
            component=options.component,
            graph=graph,
            attention=options.attention_form,
            target=options.target,
            opset=options.resolved_opset,
            input=options.input_kind,
            max_batch=options.max_batch,
            rewrites=tuple(result.name for result in results if result.count),
            signature=component_signature(model.config, options),
            evidence=evidence,
            recipe_sha256=recipe,
        )
        stale = [name for name in manifest.files_of(graph) if name not in records]
        progress("writing the bundle")
        transaction.commit(
            manifest.merged(variants=[variant], files=records, tools=tool_versions(), without=stale)
        )
    return ExportResult(Bundle.open(bundle_dir), variant, reused=False, rewrites=tuple(results))


def _open_if_intact(bundle_dir: str | os.PathLike[str], names: Sequence[str]) -> Bundle | None:
    """Open the bundle if these files are what the manifest says; a damaged one is made again."""
    try:
        bundle = Bundle.open(bundle_dir)
        for name in names:
            bundle.check(name)
    except IntegrityError:
        return None
    return bundle


def _select(options: ExportOptions, spec: PreprocessSpec) -> list[Rewrite]:
    rewrites = select_rewrites(
        options.target,
        only=options.rewrites,
        without=options.without_rewrites,
        component=options.component,
    )
    if options.input_kind == "uint8":
        rewrites.insert(0, fold_normalization(spec.mean, spec.std))
    return rewrites


def _base_manifest(
    previous: Manifest | None, model: VisualFrontEnd, spec: PreprocessSpec, digest: str, *, force: bool
) -> Manifest:
    """Return the manifest to extend: the bundle's own, or a new one."""
    fresh = Manifest(model=model.config, preprocessing=spec, source=checkpoint_source(model, digest))
    if previous is None:
        return fresh
    differing = [
        name
        for name, same in (
            ("weights", previous.source.sha256 == digest),
            ("architecture or tiles", previous.model == model.config),
            ("preprocessing", previous.preprocessing == spec),
        )
        if not same
    ]
    if differing and not force:
        raise BundleError(
            f"the bundle holds a model with other {', '.join(differing)}; write to another directory, or replace "
            "the whole bundle (--force, force=True)"
        )
    return fresh if differing else previous


def _cases(
    model: VisualFrontEnd,
    options: ExportOptions,
    spec: PreprocessSpec,
    photographs: Sequence[ImageSource],
    progress: Progress,
) -> list[ParityCase]:
    progress("running the reference")
    small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL_MODEL_PARAMETERS
    batches = (1, 2, 3, 5) if small else (2,)
    return reference_cases(model, options, spec, photographs=photographs, noise_batches=batches)


def _make_graph(
    model: VisualFrontEnd,
    options: ExportOptions,
    rewrites: list[Rewrite],
    cases: list[ParityCase],
    *,
    path: Path,
    progress: Progress,
) -> tuple[list[Path], Evidence, list[RewriteResult]]:
    """Write the graph to `path` and hold it against the reference."""
    progress("rewriting")
    deploy, results = deploy_module(
        model, rewrites, options.attention_form, getattr(torch, options.precision)
    )
    folded = any(result.name == "fold-output-norm" and result.count for result in results)
    norm = model.output_norm
    affine = (np.asarray(norm.weight), np.asarray(norm.bias)) if folded else None
    signature = component_signature(model.config, options)
    boundaries = boundary_names(model.config, options, folded=folded)

    progress("translating to ONNX")
    graph = translate(ComponentModule(deploy, options).eval(), options, signature, boundaries)
    name_by_module(graph)
    holders = detach_boundaries(graph, boundaries)
    describe(graph, model.config, options, signature, [result.name for result in results if result.count])
    progress("saving and checking the graph")
    files = save_graph(graph, path)
    _release(graph, deploy, model)
    del deploy, graph
    gc.collect()

    progress("comparing with the reference")
    probe = path.with_name(f"{path.stem}.probe.onnx")
    try:
        write_probe(path, probe, holders)
        evidence = measure_parity(probe, holders, cases, options.precision, affine)
    finally:
        probe.unlink(missing_ok=True)
    require_parity(evidence)
    return files, evidence, results


def _release(graph: ir.Model, deploy: VisualFrontEnd, model: VisualFrontEnd) -> None:
    """Free the rewritten weights before the gate loads the graph.

    Dropping the references is not enough: onnxscript's optimizer rules remember the last graph they matched.
    """
    for value in graph.graph.initializers.values():
        value.const_value = None
    kept = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for tensor in (*deploy.parameters(), *deploy.buffers()):
        if id(tensor) not in kept:
            tensor.data = tensor.data.new_empty(0)
