"""Types of manifest fields that several records share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from pargo_export.bundle.paths import check_relative

__all__ = ["BundlePath", "Count", "Positive", "Sha256"]

BundlePath = Annotated[str, AfterValidator(check_relative)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
