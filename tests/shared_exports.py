"""Exported graphs that several folders of tests read: each is exported once in a run, whoever asks first."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from graph.exports import Exported, source_model
from made_once import made_once

from pargo_export.bundle import BundleTransaction, sha256_bytes
from pargo_export.graph import save
from pargo_export.graph.export import export_onnx
from pargo_export.graph.options import ExportOptions

__all__ = ["MAX_BATCH", "collect_exports", "export_once"]

MAX_BATCH = 4  # of every graph that does not need another: graphs that differ in it alone are not shared


def export_once(
    factory: pytest.TempPathFactory, source: str, *, external: bool = False, **options: Any
) -> Exported:
    """Export a model into a bundle of its own, or return what a process of this run has made; do not write to it.

    Args:
        factory: Of this process.
        source: The model: see `source_model`.
        external: Put the weights into a file of their own, however small they are.
        **options: Fields of `ExportOptions`, by default `max_batch=MAX_BATCH`.
    """
    chosen = ExportOptions(**{"max_batch": MAX_BATCH, **options})
    key = repr((source, replace(chosen, attention=chosen.attention_form), external))

    def make(directory: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if external:
                patch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 0)
            result = export_onnx(source_model(source), directory / "bundle", chosen)
        (directory / "result.pickle").write_bytes(pickle.dumps(result))

    return _read(made_once(factory, f"export-{sha256_bytes(key.encode())[:16]}", make))


@cache
def _read(directory: Path) -> Exported:
    result = pickle.loads((directory / "result.pickle").read_bytes())  # our own
    return Exported(result, directory / "bundle" / result.variant.graph)


def collect_exports(path: Path, exports: Mapping[str, Exported]) -> Path:
    """Put several exports of one model into a bundle, new or not, by the names of the variants; return its path.

    It is what exporting them one after the other into one bundle gives, but for the recipe's hash of a variant
    that was exported under another name: exporting it again would not find it up to date.
    """
    with BundleTransaction(path) as transaction:
        manifest = transaction.previous
        for name, exported in exports.items():
            bundle, variant = exported.result.bundle, exported.variant
            files = bundle.manifest.files
            if name != variant.name:
                assert list(files) == [variant.graph], "a graph's weights file is found by its name"
                graph = f"onnx/{name}.onnx"
                files = {graph: files[variant.graph]}
                variant = variant.model_copy(update={"name": name, "graph": graph})
            records = {}
            for relative, source in zip(files, bundle.manifest.files, strict=True):
                shutil.copyfile(bundle.file(source), transaction.stage(relative))
                record = files[relative]
                records[relative] = transaction.record(relative, stage=record.stage, parents=record.parents)
            base = manifest or bundle.manifest.model_copy(update={"variants": {}, "files": {}})
            manifest = base.merged(variants=[variant], files=records, tools=bundle.manifest.tools)
        assert manifest is not None, "give at least one export"
        transaction.commit(manifest)
    return path
