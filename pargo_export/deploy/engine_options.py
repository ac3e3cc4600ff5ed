"""From what was asked for to the options of one build."""

from __future__ import annotations

import dataclasses

from pargo_export.bundle import BatchProfile, Variant
from pargo_export.deploy.options import DeployOptions
from pargo_export.deploy.plan import Plan
from pargo_export.engine.options import EngineOptions, buckets
from pargo_export.errors import ConfigError

__all__ = ["resolve_engine_options"]


def resolve_engine_options(options: DeployOptions, plan: Plan, variant: Variant) -> EngineOptions:
    """Return the options to build a variant with.

    An engine that is built for comparison has the same settings, but a name of its own and no plugin that must be used.

    Raises:
        ConfigError: The batch sizes contradict each other or the variant.
    """
    is_baseline = variant.name != plan.variant
    settings = options.engine
    return dataclasses.replace(
        settings,
        flavor=plan.flavor,
        capabilities=plan.target.capabilities,
        profiles=_profiles(options, variant),
        name=None if is_baseline else settings.name,
        plugins="auto" if is_baseline and settings.plugins == "require" else settings.plugins,
    )


def _profiles(options: DeployOptions, variant: Variant) -> tuple[BatchProfile, ...]:
    """Return one profile for each of `batches`; else one, if any of its three sizes was given."""
    if options.batches:
        return buckets(options.batches)
    low, opt, high = options.min_batch, options.opt_batch, options.max_batch
    if low is None and opt is None and high is None:
        return ()
    low = low or 1
    high = high or max(variant.max_batch, low)
    opt = opt or low
    if not low <= opt <= high:
        raise ConfigError(
            f"batch sizes {low}, {opt}, {high} are not in ascending order; variant {variant.name!r} takes up to "
            f"{variant.max_batch}"
        )
    return (BatchProfile(min_batch=low, opt_batch=opt, max_batch=high),)
