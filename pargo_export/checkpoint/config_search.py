"""Where a configuration comes from when none is given."""

from __future__ import annotations

import json
from pathlib import Path

from pargo_export.checkpoint.config_file import ConfigSource, looks_like_config, read_config
from pargo_export.checkpoint.inference import Facts
from pargo_export.checkpoint.presets import PRESETS
from pargo_export.checkpoint.resolution import find_contradictions
from pargo_export.checkpoint.source import TensorSource
from pargo_export.checkpoint.statements import Statements
from pargo_export.config import VitConfig
from pargo_export.errors import ConfigError

__all__ = ["METADATA_KEY", "find_config"]

METADATA_KEY = "pargo_export.config"


def find_config(
    config: ConfigSource | None, source: TensorSource, facts: Facts, vision: VitConfig | None = None
) -> Statements:
    """Return what the given configuration says, or the first that is found.

    Without one: the metadata of the file, then `NAME.json` or `config.json` beside it, then the preset that
    agrees with every shape, then nothing but the shapes. With a tower of its own directory (`vision`) the projector of a
    preset is all that must agree.

    Raises:
        ConfigError: A configuration cannot be read, or several presets agree.
    """
    if config is not None:
        return read_config(config)
    if METADATA_KEY in source.metadata:
        return _from_metadata(source)
    for path in _neighbours(source.files[0]):
        if path.is_file() and looks_like_config(path):
            return read_config(path)
    return _matching_preset(facts, vision) or Statements("no configuration was given or found")


def _from_metadata(source: TensorSource) -> Statements:
    try:
        content = json.loads(source.metadata[METADATA_KEY])
    except ValueError as error:
        raise ConfigError(f"{source.files[0]}: metadata {METADATA_KEY} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{source.files[0]}: metadata {METADATA_KEY} is no JSON object")
    statements = read_config(content)
    statements.source = f"metadata of {source.files[0].name}"
    return statements


def _neighbours(path: Path) -> list[Path]:
    stem = path.name.partition(".")[0]
    return [path.with_suffix(".json"), path.with_name(f"{stem}.json"), path.with_name("config.json")]


def _matching_preset(facts: Facts, vision: VitConfig | None) -> Statements | None:
    matches = []
    for name in PRESETS:
        statements = read_config(name)
        if vision is not None:
            statements = statements.without("vision.")
        if len(facts) and "projector.family" in facts and not find_contradictions(statements, facts):
            matches.append(statements)
    if len(matches) > 1:
        names = ", ".join(statements.source for statements in matches)
        raise ConfigError(
            f"no configuration was given and several presets have these shapes: {names}; name one"
        )
    if matches:
        matches[0].notes.append(
            f"no configuration was given; {matches[0].source} was taken because every shape agrees"
        )
        return matches[0]
    return None
