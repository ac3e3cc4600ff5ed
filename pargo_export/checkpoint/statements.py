"""What a configuration says and what a checkpoint shows, field by field, each with its wording for an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pargo_export.errors import ConfigError

__all__ = ["Statement", "Statements"]


@dataclass(frozen=True)
class Statement:
    """One value.

    Attributes:
        value: The value.
        wording: What says so, in the words of its author: `num_query_token 300`.
    """

    value: Any
    wording: str


@dataclass
class Statements:
    """Values of fields (`vision.width`), collected from one source that must not contradict itself.

    Attributes:
        source: Where they come from (a file name, `preset tiny`, `config`).
        notes: What a reader of the report should know about them.
    """

    source: str
    notes: list[str] = field(default_factory=list)
    _values: dict[str, Statement] = field(default_factory=dict)

    def add(self, name: str, value: Any, wording: str) -> None:
        """Record a value; `None` records nothing.

        Raises:
            ConfigError: The same source says something else about the same field.
        """
        if value is None:
            return
        known = self._values.setdefault(name, Statement(value, wording))
        if known.value != value:
            raise ConfigError(
                f"{self.source} contradicts itself: {known.wording}, but {wording}; correct one of them"
            )

    def without(self, prefix: str) -> Statements:
        """Return what is said about all fields whose names do not begin so."""
        values = {name: said for name, said in self._values.items() if not name.startswith(prefix)}
        return Statements(self.source, [*self.notes], values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of a field, or `default` if nothing is said about it."""
        return self._values[name].value if name in self._values else default

    def wording(self, name: str) -> str:
        """Return how the source words its value of a field."""
        return self._values[name].wording
