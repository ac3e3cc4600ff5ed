"""What kind of engine to build."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pargo_export.bundle import VARIANT_NAME, BatchProfile, Flavor, Variant, default_engine_name
from pargo_export.errors import ConfigError
from pargo_export.trt.plugins import PluginMode

__all__ = ["EngineOptions", "FlavorChoice", "buckets"]

FlavorChoice = Literal["auto", "tensorrt", "rtx"]

_CAPABILITY = re.compile(r"\d+\.\d")
_HIGHEST_LEVEL = 5


@dataclass(frozen=True)
class EngineOptions:
    """Choices of one build.

    Attributes:
        flavor: `tensorrt`, `rtx` (TensorRT for RTX), or `auto`: TensorRT where it and a GPU are there, else RTX.
        capabilities: For RTX, the compute capabilities to build for, for example `("8.6", "8.9")`; empty: what
            TensorRT for RTX builds for by itself. TensorRT builds for the GPU of the machine alone.
        profiles: Batch sizes, one optimization profile each; empty: one, from 1 to the variant's largest batch, whose
            kernels are chosen for batch 1 (docs/adr/0006). `buckets` makes several.
        workspace_bytes: Memory that kernels may ask for; `None`: by the memory that is free now.
        timing_cache: Keep measured kernels in the bundle, so that the next build is faster. RTX measures none.
        optimization_level: 0 (fast build) to 5 (long search); `None`: TensorRT's own choice, 3.
        profiling: Keep the names and types of all layers in the engine. Where there is a GPU that is always done, as
            the engine is inspected.
        plugins: `off`; `auto`: where one is found; `require`: an error if the engine has none.
        plugin_libraries: Shared libraries with plugins; they are copied into the bundle.
        min_share: Smallest share of the operations in the precision asked for that is accepted, 0 to 1.
        name: Name of the engine; by default made from variant and device.

    Raises:
        ConfigError: A choice is unknown, out of range, or two contradict each other.
    """

    flavor: FlavorChoice = "auto"
    capabilities: tuple[str, ...] = ()
    profiles: tuple[BatchProfile, ...] = ()
    workspace_bytes: int | None = None
    timing_cache: bool = True
    optimization_level: int | None = None
    profiling: bool = False
    plugins: PluginMode = "off"
    plugin_libraries: tuple[Path, ...] = ()
    min_share: float = 0.99
    name: str | None = None

    def __post_init__(self) -> None:
        self._require_known("flavor", get_args(FlavorChoice))
        self._require_known("plugins", get_args(PluginMode))
        wrong = [item for item in self.capabilities if not _CAPABILITY.fullmatch(item)]
        if wrong:
            raise ConfigError(f"compute capability {wrong[0]!r} is not of the form '8.6'")
        if self.capabilities and self.flavor == "tensorrt":
            raise ConfigError(
                f"flavor 'tensorrt' builds for the GPU of this machine, so capabilities {', '.join(self.capabilities)} "
                "mean nothing; leave them out, or choose flavor 'rtx'"
            )
        if self.plugin_libraries and self.plugins == "off":
            raise ConfigError("plugin libraries are given, but plugins is 'off'; choose 'auto' or 'require'")
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise ConfigError(f"workspace_bytes is {self.workspace_bytes}; it must be positive")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= _HIGHEST_LEVEL:
            raise ConfigError(
                f"optimization_level is {self.optimization_level}; it must be from 0 to {_HIGHEST_LEVEL}"
            )
        if not 0 <= self.min_share <= 1:
            raise ConfigError(f"min_share is {self.min_share}; it must be from 0 to 1")
        if self.name is not None and not re.fullmatch(VARIANT_NAME, self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
            )

    def _require_known(self, field: str, known: tuple[str, ...]) -> None:
        if getattr(self, field) not in known:
            raise ConfigError(f"{field} is {getattr(self, field)!r}; known: {', '.join(known)}")

    def profiles_for(self, variant: Variant) -> tuple[BatchProfile, ...]:
        """Return the profiles, with the default resolved.

        Raises:
            ConfigError: A profile has batches that the variant was not made for.
        """
        largest = variant.max_batch
        if not self.profiles:
            return (BatchProfile(min_batch=1, opt_batch=1, max_batch=largest),)
        for profile in self.profiles:
            if profile.max_batch > largest:
                raise ConfigError(
                    f"profile {profile} has batch {profile.max_batch}, but variant {variant.name!r} was made and measured "
                    f"for batches up to {largest}; ask for less, or export it again with --max-batch {profile.max_batch}"
                )
        if largest == 1 and len(self.profiles) > 1:
            raise ConfigError(f"variant {variant.name!r} has the fixed batch 1, which needs one profile only")
        return self.profiles

    def engine_name(self, variant: str, flavor: Flavor, capability: str) -> str:
        """Name of the engine in the bundle: what was asked for, or `bundle.default_engine_name`.

        Args:
            variant: Name of the variant.
            flavor: What builds it.
            capability: Compute capability of this machine's GPU, which counts for `tensorrt`.
        """
        if self.name is not None:
            return self.name
        capabilities = (capability,) if flavor == "tensorrt" else self.capabilities
        return default_engine_name(variant, flavor, capabilities)

    def settings(self) -> dict[str, str | int | float | bool]:
        """The choices that are not already fields of the engine's record, for people and for the rebuild command."""
        values: dict[str, Any] = {
            "timing_cache": self.timing_cache,
            "profiling": self.profiling,
            "plugins": self.plugins,
            "min_share": self.min_share,
            "workspace_bytes": self.workspace_bytes,
            "optimization_level": self.optimization_level,
        }
        return {name: value for name, value in values.items() if value is not None}


def buckets(sizes: Sequence[int]) -> tuple[BatchProfile, ...]:
    """Return one profile up to each of the batch sizes: `1, 4, 8` gives 1-1-1, 2-4-4 and 5-8-8.

    Kernels of a bucket are chosen for its largest batch, to which a runtime pads what it is given.

    Raises:
        ConfigError: There is no size, or they are not positive and ascending.
    """
    if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)):
        raise ConfigError(
            f"batch sizes are {', '.join(map(str, sizes)) or 'none'}; expected for example 1, 4, 8"
        )
    lowest = [1, *(size + 1 for size in sizes[:-1])]
    return tuple(
        BatchProfile(min_batch=low, opt_batch=high, max_batch=high)
        for low, high in zip(lowest, sizes, strict=True)
    )
