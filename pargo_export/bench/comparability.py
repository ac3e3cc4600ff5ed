"""Whether two results can be held against each other, and what else changed between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pargo_export.bench.records import BenchResult
from pargo_export.errors import ConfigError

__all__ = ["check_comparable", "describe_changes"]


def check_comparable(old: BenchResult, new: BenchResult, *, allow_other_device: bool = False) -> None:
    """Refuse a comparison that could say nothing.

    Raises:
        ConfigError: The results are of models of different sizes, or of different processors, GPUs or boards and that
            was not allowed.
    """
    sizes = {
        "parameters": (old.bundle.num_parameters, new.bundle.num_parameters),
        "image size": (old.bundle.image_size, new.bundle.image_size),
        "visual tokens": (old.bundle.num_visual_tokens, new.bundle.num_visual_tokens),
    }
    found = _changes(sizes)
    if found:
        raise ConfigError(
            f"the results are of different models, {'; '.join(found)}; compare with a result of the same model"
        )
    found = _changes(_devices(old, new))
    if found and not allow_other_device:
        raise ConfigError(
            f"the results are of different devices, {'; '.join(found)}: a slower device is not a regression; measure "
            "the old version on this one, or allow another device (allow_other_device) to see the ratios all the same"
        )


def describe_changes(old: BenchResult, new: BenchResult) -> tuple[str, ...]:
    """Return what differs between two runs beside what was to be compared, each as one warning."""
    before, after = old.environment, new.environment
    groups: dict[str, Mapping[str, tuple[Any, Any]]] = {
        "other device": _devices(old, new),
        "other settings of the machine": {
            "governor": (before.cpu.governor, after.cpu.governor),
            "turbo": (before.cpu.turbo, after.cpu.turbo),
            "usable cores": (before.cpu.num_usable_cores, after.cpu.num_usable_cores),
            "container": (before.container, after.container),
            "power limit of the GPU, W": _of_gpus(old, new, "power_limit_w"),
            "largest clock of the GPU, MHz": _of_gpus(old, new, "max_clock_mhz"),
            "power mode": _of_boards(old, new, "power_mode"),
            "jetson_clocks": _of_boards(old, new, "jetson_clocks"),
        },
        "other software": {
            "system": (before.platform, after.platform),
            "python": (before.python, after.python),
            "driver": (before.driver, after.driver),
            "cuda": (before.cuda, after.cuda),
            **_items(before.packages, after.packages),
        },
        "other environment variables": _items(before.variables, after.variables),
        "other settings of the benchmark": {
            "threads": (old.settings.threads, new.settings.threads),
            "rounds": (old.settings.num_rounds, new.settings.num_rounds),
            "subjects in turns": (len(old.subjects), len(new.subjects)),
        },
        "other bundle": {"manifest": (old.bundle.manifest_sha256[:12], new.bundle.manifest_sha256[:12])},
    }
    warnings = [
        f"{title}: {'; '.join(found)}" for title, group in groups.items() if (found := _changes(group))
    ]
    if old.warnings:
        more = f" (and {len(old.warnings) - 1} more)" if len(old.warnings) > 1 else ""
        warnings.append(f"the old result has a warning of its own: {old.warnings[0]}{more}")
    return tuple(warnings)


def _devices(old: BenchResult, new: BenchResult) -> dict[str, tuple[Any, Any]]:
    before, after = old.environment, new.environment
    return {
        "processor": (before.cpu.model, after.cpu.model),
        "GPU": _of_gpus(old, new, "name"),
        "board": _of_boards(old, new, "model"),
    }


def _of_gpus(old: BenchResult, new: BenchResult, field: str) -> tuple[Any, Any]:
    before, after = ([getattr(gpu, field) for gpu in result.environment.gpus] for result in (old, new))
    return before, after


def _of_boards(old: BenchResult, new: BenchResult, field: str) -> tuple[Any, Any]:
    before, after = (getattr(result.environment.jetson, field, None) for result in (old, new))
    return before, after


def _items(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    return {name: (before.get(name), after.get(name)) for name in sorted({*before, *after})}


def _changes(pairs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name}: {_show(old)}, now {_show(new)}" for name, (old, new) in pairs.items() if old != new]


def _show(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_show, value)) or "none"
    return "none" if value is None else str(value)
