"""Configurations as people have them: our own JSON, the official files, a preset, an object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from pargo_export.checkpoint.official_config import MARKERS, family_of, official_statements, read_json
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.checkpoint.statements import Statements
from pargo_export.config import ModelConfig, ProjectorConfig, Record, VisionConfig, VitConfig
from pargo_export.errors import ConfigError

__all__ = ["ConfigSource", "looks_like_config", "read_config"]

ConfigSource: TypeAlias = str | Path | Mapping[str, Any] | ModelConfig


def read_config(config: ConfigSource) -> Statements:
    """Collect what a configuration says; it may be incomplete.

    Args:
        config: A JSON file, its content, the name of a preset, or a `ModelConfig`.

    Raises:
        ConfigError: It cannot be read, has unknown fields, contradicts itself or describes another architecture.
    """
    if isinstance(config, ModelConfig):
        return _own_statements(config.model_dump(), "config")
    if isinstance(config, Mapping):
        return _statements(config, "config", Path())
    if isinstance(config, str) and config in PRESETS:
        return _own_statements(preset(config).model_dump(), f"preset {config}")
    path = Path(config)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, and no preset; the presets are {', '.join(PRESETS)}")
    return _statements(read_json(path), path.name, path.parent)


def looks_like_config(path: Path) -> bool:
    """Whether a file that happens to lie beside a checkpoint describes a visual front-end."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and bool({"projector", *MARKERS} & set(content))


def _statements(values: Mapping[str, Any], source: str, directory: Path) -> Statements:
    is_own = "fusion_method" not in values and any(
        isinstance(values.get(part), Mapping) for part in ("vision", "projector")
    )
    return _own_statements(values, source) if is_own else official_statements(values, source, directory)


def _own_statements(values: Mapping[str, Any], source: str) -> Statements:
    statements = Statements(source)
    vision = values.get("vision")
    is_vit = isinstance(vision, Mapping) and "kind" in vision
    sections: dict[str, type[Record]] = {
        "vision": VitConfig if is_vit else VisionConfig,
        "projector": ProjectorConfig,
    }
    _refuse_unknown(values, ModelConfig, source, "")
    for name, value in values.items():
        if name not in sections:
            statements.add(name, value, f"{name} {value}")
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"{source}: {name} is a {type(value).__name__}, expected an object")
        _refuse_unknown(value, sections[name], source, f"{name}.")
        for key, item in value.items():
            statements.add(f"{name}.{key}", item, f"{name}.{key} {item}")
    if "projector.kind" in statements:
        kind = str(statements.value("projector.kind"))
        statements.add("projector.family", family_of(kind), statements.wording("projector.kind"))
    counts = ("projector.num_partial_tokens", "projector.num_global_tokens")
    if all(isinstance(statements.value(name), int) for name in counts):
        total = sum(statements.value(name) for name in counts)
        statements.add("projector.num_query_tokens", total, " + ".join(map(statements.wording, counts)))
    return statements


def _refuse_unknown(values: Mapping[str, Any], record: type[Record], source: str, prefix: str) -> None:
    for key in values:
        if key not in record.model_fields:
            near = get_close_matches(str(key), record.model_fields, n=1)
            mend = (
                f"did you mean {prefix}{near[0]}?"
                if near
                else f"the fields are {', '.join(record.model_fields)}"
            )
            raise ConfigError(f"{source}: unknown field {prefix}{key}; {mend}")
