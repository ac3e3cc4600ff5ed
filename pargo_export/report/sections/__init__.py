"""The sections of the report, one file each, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable

from pargo_export.report.context import Context
from pargo_export.report.parts import Section
from pargo_export.report.sections.accuracy import accuracy
from pargo_export.report.sections.comparisons import comparisons
from pargo_export.report.sections.distributions import distributions
from pargo_export.report.sections.environment import environment, settings
from pargo_export.report.sections.headline import headline, warnings
from pargo_export.report.sections.load import load
from pargo_export.report.sections.masks import masks
from pargo_export.report.sections.precision import precision
from pargo_export.report.sections.reading import reading
from pargo_export.report.sections.resources import energy, memory
from pargo_export.report.sections.rounds import rounds
from pargo_export.report.sections.scaling import scaling
from pargo_export.report.sections.stages import stages
from pargo_export.report.sections.sustained import sustained

__all__ = ["SECTIONS"]

# Each returns `None` if there is nothing to say.
SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    headline,
    warnings,
    comparisons,
    distributions,
    rounds,
    stages,
    scaling,
    load,
    sustained,
    memory,
    energy,
    accuracy,
    masks,
    precision,
    environment,
    settings,
    reading,
)
