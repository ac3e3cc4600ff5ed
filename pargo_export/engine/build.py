"""The trt command's work on one variant: graph -> typed network -> engine -> inspected -> in the bundle."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pargo_export.bundle import Bundle, BundleTransaction, Engine, Manifest
from pargo_export.engine.compile import compile_engine
from pargo_export.engine.config import create_config
from pargo_export.engine.inspect_build import require_engine, require_network
from pargo_export.engine.network import parse
from pargo_export.engine.options import EngineOptions
from pargo_export.engine.order import Order
from pargo_export.engine.publish import publish
from pargo_export.engine.recipe import require_replaceable
from pargo_export.engine.timing_cache import cache_path, read_cache, take_cache, use_cache
from pargo_export.engine.workspace import find_free_memory, find_workspace
from pargo_export.errors import EngineError
from pargo_export.overrides import with_overrides
from pargo_export.trt.plugins import PluginSet

__all__ = ["EngineResult", "build_engine"]


@dataclass(frozen=True)
class EngineResult:
    """What `build_engine` did.

    Attributes:
        bundle: The bundle, with the engine in it.
        engine: The engine that was asked for.
        reused: The bundle already held exactly this engine, so nothing was done.
    """

    bundle: Bundle
    engine: Engine
    reused: bool


def build_engine(
    bundle: Bundle | str | os.PathLike[str],
    variant: str | None = None,
    options: EngineOptions | None = None,
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    cancel: threading.Event | None = None,
    **overrides: Any,
) -> EngineResult:
    """Build a TensorRT engine of a variant into the bundle, if it computes in the precision asked for.

    Args:
        bundle: The bundle.
        variant: Name of the variant; `None`: the only one that TensorRT can build.
        options: What kind of engine.
        force: Replace an engine of that name that was built with other settings, and redo one that is up to date.
        progress: Called with a short text at the start of each step.
        advance: Called with the steps done and in all, while TensorRT builds.
        cancel: Stops the build when it is set, also from another thread.
        **overrides: Fields of `EngineOptions`, for example `flavor="rtx"`.

    Raises:
        BundleError: There is no bundle, or no such variant.
        ConfigError: An option is unknown or does not fit the variant.
        EngineError: The variant cannot be built here, the build failed or was cancelled, or the engine is not what was
            asked for; nothing was written.
        IntegrityError: The graph is not the one that the manifest describes.
        MissingDependencyError: The TensorRT that was asked for is not installed.
    """
    options = with_overrides(options or EngineOptions(), overrides, kind="engine")
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    order = Order.of(bundle, variant, options)
    with PluginSet.discover(
        order.tensorrt,
        options.plugins,
        options.plugin_libraries,
        compute_capabilities=options.capabilities,
    ) as plugins:
        recipe = order.recipe(plugins)
        existing = bundle.manifest.engines.get(order.name)
        if existing is not None and not force:
            if existing.recipe_sha256 == recipe:
                return EngineResult(bundle, existing, reused=True)
            require_replaceable(existing, order.variant, order.profiles, options)
        work = _Build(order, plugins, progress, advance, cancel or threading.Event())
        engine = work.run(recipe)
    return EngineResult(Bundle.open(bundle.path), engine, reused=False)


@dataclass
class _Build:
    """One build, from the order to the commit."""

    order: Order
    plugins: PluginSet
    progress: Callable[[str], None]
    advance: Callable[[int, int], None]
    cancel: threading.Event

    def run(self, recipe: str) -> Engine:
        """Build and return the engine, which is in the bundle then."""
        order = self.order
        with BundleTransaction(order.bundle.path) as transaction:
            previous = self._require_unchanged(transaction.previous)
            self._step("checking the graph")
            graph = order.check_graph()
            self._step(f"parsing the graph with {order.tensorrt.title}")
            parsed = parse(order.tensorrt, order.variant, graph, plugins=self.plugins)
            self.plugins.used(parsed.network)
            report = require_network(
                order.tensorrt, parsed.network, order.variant, min_share=order.options.min_share
            )
            workspace = order.options.workspace_bytes or _free_workspace(order)
            config = create_config(
                order.tensorrt,
                parsed,
                order.variant,
                order.options,
                profiles=order.profiles,
                workspace_bytes=workspace,
                detailed=order.options.profiling or order.has_gpu,
            )
            cache = _cache_path(order)
            content, cache_notes = read_cache(order.bundle, cache)
            if cache is not None:
                cache_notes += use_cache(config, content)
            self._step(f"building the engine with {order.tensorrt.title}")
            compiled = compile_engine(
                order.tensorrt,
                parsed,
                config,
                order.variant,
                settings=order.describe(workspace),
                advance=self.advance,
                cancel=self.cancel,
            )
            self._step("inspecting the engine")
            found = require_engine(
                order.tensorrt,
                compiled.plan,
                report,
                profile=order.profiles[0],
                min_share=order.options.min_share,
                has_gpu=order.has_gpu,
            )
            notes = (*self.plugins.notes, *parsed.notes, *cache_notes, *found.notes)
            measured = take_cache(config) if cache is not None else b""
            self._step("writing the bundle")
            return publish(
                transaction,
                previous,
                order,
                compiled,
                found.model_copy(update={"notes": notes}),
                attention=parsed.attention,
                plugins=self.plugins,
                recipe=recipe,
                timing_cache=(cache, measured) if cache is not None and measured else None,
            )

    def _step(self, text: str) -> None:
        if self.cancel.is_set():
            raise EngineError(
                f"the build of variant {self.order.variant.name!r} was cancelled; the bundle is as it was"
            )
        self.progress(text)

    def _require_unchanged(self, previous: Manifest | None) -> Manifest:
        files = self.order.bundle.manifest.files
        if previous is None or any(
            previous.files.get(name) != files[name] for name in self.order.graph_files
        ):
            raise EngineError("the bundle was changed meanwhile; build again")
        return previous


def _free_workspace(order: Order) -> int | None:
    shared = order.device.is_jetson
    return find_workspace(shared=shared, free_bytes=find_free_memory(shared=shared))


def _cache_path(order: Order) -> str | None:
    if not order.options.timing_cache:
        return None
    return cache_path(order.tensorrt, order.device.compute_capability)
