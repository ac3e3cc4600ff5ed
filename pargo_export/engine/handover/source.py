"""What is handed over: a variant, or one of its engines, with the files checked."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pargo_export.bundle import Bundle, Engine, Variant
from pargo_export.errors import EngineError

__all__ = ["Source", "find_source", "needed_gpu"]


@dataclass(frozen=True)
class Source:
    """A variant, or one of its engines.

    Attributes:
        bundle: The bundle.
        variant: The variant.
        engine: The engine to hand over; `None` for the graph.
    """

    bundle: Bundle
    variant: Variant
    engine: Engine | None = None

    @property
    def graph_sha256(self) -> str:
        """Hash of the graph and its weights."""
        return self.bundle.manifest.graph_sha256(self.variant.graph)

    @property
    def name(self) -> str:
        """Name of the engine, or of the variant."""
        return self.engine.name if self.engine else self.variant.name

    def copy_graph(self, directory: Path, name: str) -> None:
        """Copy the graph as `name`; weights beside it keep their name, which is written in the graph.

        Raises:
            IntegrityError: A file is not what the manifest describes.
        """
        graph, *weights = self.bundle.manifest.files_of(self.variant.graph)
        shutil.copyfile(self.bundle.check(graph), directory / name)
        for path in weights:
            checked = self.bundle.check(path)
            shutil.copyfile(checked, directory / checked.name)

    def copy_engine(self, target: Path) -> None:
        """Copy the engine; it is code, so its hash is compared first.

        Raises:
            IntegrityError: It is not the file that the manifest describes.
        """
        engine = self.require_engine()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.bundle.check(engine.file), target)

    def require_engine(self) -> Engine:
        """Return the engine.

        Raises:
            EngineError: Only a graph was chosen.
        """
        if self.engine is None:
            raise EngineError(
                f"bundle {self.bundle.path}: variant {self.variant.name!r} has no engine; build one with `pargo-export "
                f"trt {self.bundle.path} --variant {self.variant.name}`"
            )
        return self.engine


def find_source(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    variant: str | None,
    engine: str | None,
    wants_engine: bool = False,
) -> Source:
    """Find what is to be handed over.

    Args:
        bundle: The bundle.
        variant: Name of the variant; may be left out if there is one, or if an engine is named.
        engine: Name of an engine.
        wants_engine: Take the only engine of the variant, or of the bundle, if none is named.

    Raises:
        BundleError: There is no such variant, or none is named and there are several.
        EngineError: There is no such engine, it is of another variant or of an older graph, or there are several.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    engines = opened.manifest.engines
    if engine is None and wants_engine:
        engine = _only_engine(opened, variant)
    if engine is None:
        return Source(opened, opened.variant(variant))
    if engine not in engines:
        known = ", ".join(sorted(engines)) or "none; build one with `pargo-export trt`"
        raise EngineError(f"bundle {opened.path} has no engine {engine!r}; it has {known}")
    record = engines[engine]
    if variant is not None and variant != record.variant:
        raise EngineError(
            f"engine {engine!r} is of variant {record.variant!r}, not of {variant!r}; name one of the two"
        )
    source = Source(opened, opened.variant(record.variant), record)
    if source.graph_sha256 != record.graph_sha256:
        raise EngineError(
            f"engine {engine!r} was built from an older graph of variant {record.variant!r}; build it again with "
            f"`pargo-export trt {opened.path} --variant {record.variant} --force`"
        )
    return source


def needed_gpu(engine: Engine) -> str:
    """Say which GPU an engine runs on."""
    if not engine.compute_capabilities:
        return "a GPU that TensorRT for RTX builds for by default"
    return f"a GPU of compute capability {' or '.join(engine.compute_capabilities)}"


def _only_engine(bundle: Bundle, variant: str | None) -> str:
    names = sorted(
        name for name, item in bundle.manifest.engines.items() if variant is None or item.variant == variant
    )
    if len(names) != 1:
        of = f" of variant {variant!r}" if variant else ""
        mend = (
            f"name one with --engine: {', '.join(names)}"
            if names
            else f"build one with `pargo-export trt {bundle.path}{f' --variant {variant}' if variant else ''}`"
        )
        raise EngineError(f"bundle {bundle.path} has {len(names)} engines{of}, one is needed; {mend}")
    return names[0]
