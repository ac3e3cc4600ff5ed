"""Put a finished engine into the bundle, with all that belongs to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pargo_export.bundle import (
    BuiltAsAsked,
    BundleTransaction,
    Engine,
    FileRecord,
    Manifest,
    PluginRequirement,
)
from pargo_export.engine.compile import CompiledEngine
from pargo_export.engine.order import Order
from pargo_export.trt.plugins import PluginSet, carried_path
from pargo_export.trt.sidecar import stage_sidecar

__all__ = ["publish"]

_STAGE = "engine"


def publish(
    transaction: BundleTransaction,
    previous: Manifest,
    order: Order,
    compiled: CompiledEngine,
    found: BuiltAsAsked,
    *,
    attention: str,
    plugins: PluginSet,
    recipe: str,
    timing_cache: tuple[str, bytes] | None,
) -> Engine:
    """Stage the engine, its plugin libraries, its sidecar and the timing cache, and commit them.

    Args:
        transaction: An open transaction on the bundle.
        previous: The manifest that it began with.
        order: What was asked for.
        compiled: What the builder gave.
        found: What was found in it.
        attention: Attention form that was built.
        plugins: Plugins of the build.
        recipe: Hash of everything that decided the engine.
        timing_cache: Path in the bundle and content.

    Raises:
        BundleError: The bundle cannot be written.
        EngineError: A plugin library changed since it was loaded.
    """
    records: dict[str, FileRecord] = {}
    if timing_cache is not None:
        path, content = timing_cache
        transaction.stage(path).write_bytes(content)
        records[path] = transaction.record(path, stage=_STAGE)
    file = f"engines/{order.name}.engine"
    transaction.stage(file).write_bytes(compiled.plan)
    records[file] = transaction.record(file, stage=_STAGE, parents=order.graph_files)
    engine = Engine(
        name=order.name,
        variant=order.variant.name,
        file=file,
        sidecar=f"engines/{order.name}.json",
        flavor=order.tensorrt.flavor,
        tensorrt_version=order.tensorrt.version,
        compute_capabilities=order.capabilities,
        device=order.device,
        profiles=order.profiles,
        graph_sha256=order.graph_sha256,
        engine_sha256=records[file].sha256,
        size_bytes=records[file].size_bytes,
        attention=attention,
        plugins=_stage_plugins(transaction, plugins, records),
        settings=order.options.settings(),
        built_as_asked=found,
        build_seconds=round(compiled.seconds, 3),
        peak_memory_bytes=compiled.peak_memory_bytes,
        recipe_sha256=recipe,
    )
    records[engine.sidecar] = stage_sidecar(transaction, engine)
    tools = {order.tensorrt.module.__name__: engine.tensorrt_version}
    obsolete = _obsolete_files(previous, engine)
    transaction.commit(previous.merged(engines=[engine], files=records, tools=tools, without=obsolete))
    return engine


def _stage_plugins(
    transaction: BundleTransaction, plugins: PluginSet, records: dict[str, FileRecord]
) -> tuple[PluginRequirement, ...]:
    def stage_library(library: Path) -> str:
        path = carried_path(library)
        shutil.copyfile(library, transaction.stage(path))
        records[path] = transaction.record(path, stage=_STAGE)
        return path

    return plugins.requirements(stage_library)


def _obsolete_files(previous: Manifest, engine: Engine) -> set[str]:
    """Files of the engine that is replaced, which no engine needs any more."""
    replaced = previous.engines.get(engine.name)
    if replaced is None:
        return set()
    others = [item for name, item in previous.engines.items() if name != engine.name]
    return set(replaced.files) - {path for item in (*others, engine) for path in item.files}
