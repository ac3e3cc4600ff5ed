"""What every record of this package has in common, and the numbers they are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from pargo_export.errors import ConfigError

__all__ = ["Epsilon", "NotNegative", "Positive", "Record"]

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]


class Record(BaseModel):
    """A frozen record; fields that this version does not know are kept, not dropped."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Validate `values`; a failure becomes one `ConfigError` that names `source` and every field.

        Raises:
            ConfigError: A field is missing, of the wrong type or contradicts another.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or cls.__name__}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False)
            )
            raise ConfigError(f"{source}: {problems}") from error
