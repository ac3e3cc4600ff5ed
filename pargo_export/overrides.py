"""Options of a function given one by one instead of as a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pargo_export.errors import ConfigError

__all__ = ["with_overrides"]

_Options = TypeVar("_Options")


def with_overrides(options: _Options, overrides: Mapping[str, Any], *, kind: str) -> _Options:
    """Return a dataclass of options with some fields replaced.

    Args:
        options: A frozen dataclass.
        overrides: New values by field.
        kind: What it is the options of, for the message: `"export"`.

    Raises:
        ConfigError: There is no such field, or the dataclass refuses a value.
    """
    known = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ConfigError(f"unknown {kind} option {', '.join(unknown)}; known: {', '.join(known)}")
    return dataclasses.replace(options, **overrides)  # type: ignore[type-var]
