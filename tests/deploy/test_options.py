"""The choices of a deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from pargo_export.bundle import BatchProfile, Bundle
from pargo_export.deploy import CheckpointOptions, DeployOptions, make_plan
from pargo_export.deploy.engine_options import resolve_engine_options
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import ConfigError


def test_words_of_the_command_line_are_taken():
    """`int8-weight-only` is `int8_weight_only`."""
    assert DeployOptions(precision="int8-weight-only").precision == "int8_weight_only"
    assert DeployOptions().precision == "float16"


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"precision": "int4"}, "known: int8, int8_weight_only, fp8, float16, bfloat16, float32"),
        ({"flavor": "trt"}, "flavor is 'trt'; known: auto, tensorrt, rtx"),
        ({"keep": "best"}, "keep is 'best'; known: all, fastest"),
        ({"target": "xavier"}, "target is 'xavier'"),
        ({"batches": (1, 4), "max_batch": 4}, "give one or the other"),
        ({"min_batch": 0}, "each must be at least 1"),
        ({"min_batch": 4, "max_batch": 2}, "4, 2; expected ascending order"),
        ({"opt_batch": 4, "max_batch": 2}, "4, 2; expected ascending order"),
    ],
)
def test_contradictions_are_refused(choices, reason):
    """With what was found and what is expected."""
    with pytest.raises(ConfigError, match=reason):
        DeployOptions(**choices)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"vision_model": Path("clip"), "vision_checkpoint": Path("eva.pt")}, "are two towers; give one"),
        ({"vision_layer": -2}, "vision_layer is -2, and there is no vision_model"),
    ],
)
def test_towers_that_do_not_fit_together(choices, reason):
    """One tower at most, and a layer only with a vision model."""
    with pytest.raises(ConfigError, match=reason):
        CheckpointOptions(**choices)


@pytest.mark.parametrize(
    ("choices", "asked", "exported"),
    [({}, 1, 8), ({"max_batch": 16}, 16, 16), ({"batches": (1, 12)}, 12, 12), ({"opt_batch": 4}, 4, 8)],
)
def test_graphs_are_exported_for_the_largest_batch(choices, asked, exported):
    """At least for eight images, as `onnx` does."""
    options = DeployOptions(**choices)
    assert (options.largest_batch, options.exported_batch) == (asked, exported)


def resolve(bundle, machine, **choices):
    """Return the options of the build of `fp32`, which takes up to four images."""
    options = DeployOptions(precision="fp32", target="rtx:sm86", **choices)
    plan = make_plan(bundle, options, facts=machine("none", "rtx"))
    return resolve_engine_options(options, plan, Bundle.open(bundle).variant(plan.variant))


@pytest.mark.parametrize(
    ("choices", "profiles"),
    [
        ({}, ()),
        ({"max_batch": 2}, ((1, 1, 2),)),
        ({"opt_batch": 2}, ((1, 2, 4),)),
        ({"min_batch": 2}, ((2, 2, 4),)),
        ({"min_batch": 2, "opt_batch": 3, "max_batch": 3}, ((2, 3, 3),)),
        ({"batches": (1, 4)}, ((1, 1, 1), (2, 4, 4))),
    ],
)
def test_batch_sizes_become_profiles(bundle, machine, choices, profiles):
    """What is left open: from one, for one, to what the variant takes. Nothing given leaves it to the builder."""
    found = resolve(bundle, machine, **choices).profiles
    assert found == tuple(
        BatchProfile(min_batch=low, opt_batch=opt, max_batch=high) for low, opt, high in profiles
    )


def test_settings_reach_the_builder(bundle, machine):
    """Target and flavor are resolved, the rest is passed on."""
    settings = EngineOptions(workspace_bytes=1 << 20, optimization_level=1, name="mine", timing_cache=False)
    found = resolve(bundle, machine, engine=settings)
    assert (found.flavor, found.capabilities) == ("rtx", ("8.6",))
    assert (found.workspace_bytes, found.optimization_level) == (1 << 20, 1)
    assert (found.name, found.timing_cache) == ("mine", False)


def test_the_engine_to_compare_with_has_its_own_name(bundle, machine, add_variants):
    """And the same settings, but no plugin that must be used."""
    add_variants(bundle, fp16={"precision": "float16"})
    settings = EngineOptions(
        name="mine", optimization_level=1, plugins="require", plugin_libraries=(Path("a.so"),)
    )
    options = DeployOptions(precision="int8", target="rtx", engine=settings)
    plan = make_plan(bundle, options, facts=machine("pc", "rtx"))
    assert plan.baseline == "fp16"
    found = resolve_engine_options(options, plan, Bundle.open(bundle).variant("fp16"))
    assert (found.name, found.optimization_level, found.plugins) == (None, 1, "auto")


def test_an_unordered_profile_names_the_limit_of_the_variant(bundle, machine):
    """The smallest batch is above what the graph takes."""
    with pytest.raises(ConfigError, match="6"):
        resolve(bundle, machine, min_batch=6).profiles_for(Bundle.open(bundle).variant("fp32"))
