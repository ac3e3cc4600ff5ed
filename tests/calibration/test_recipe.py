"""Recipes refuse contradictions, match module paths, and hash stably."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pargo_calibration import QuantRecipe

MINIMAL = {"name": "mine", "summary": "Mine.", "precision": "int8"}


def recipe(**changes):
    """A minimal recipe with changes."""
    return QuantRecipe.model_validate({**MINIMAL, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "name"),
        ({"summary": ""}, "summary"),
        ({"precision": "int4"}, "'int8', 'int8_weight_only' or 'fp8'"),
        ({"activations": {"method": "median"}}, "'max', 'percentile', 'entropy', 'mse' or 'output_mse'"),
        (
            {"activations": {"method": "percentile"}},
            "percentile is None; method 'percentile' needs a percentile",
        ),
        ({"activations": {"method": "mse", "percentile": 99}}, "the other methods must not have one"),
        ({"activations": {"method": "percentile", "percentile": 0}}, "greater than 0"),
        ({"activations": {"method": "percentile", "percentile": 101}}, "less than or equal to 100"),
        ({"weights": {"method": "entropy"}}, "'max' or 'mse'"),
        ({"smooth": {"alpha": 1.5}}, "less than or equal to 1"),
        ({"smooth": {"alpha": -0.1}}, "greater than or equal to 0"),
        ({"smooth": {"alpha": float("nan")}}, "finite number"),
        ({"smooth": {"beta": 1}}, "Extra inputs"),
        ({"keep": [{"pattern": "a"}]}, "reason"),
        ({"keep": [{"pattern": "a", "reason": "  "}]}, "at least 1 character"),
        ({"keep": [{"pattern": "", "reason": "b"}]}, "at least 1 character"),
        ({"override": [{"pattern": "a"}]}, "method is missing"),
        ({"override": [{"method": "max"}]}, "pattern"),
        ({"precision": "fp8", "activations": {"method": "entropy"}}, "fp8 has not"),
        ({"precision": "fp8", "override": [{"pattern": "a", "method": "entropy"}]}, "fp8 has not"),
        ({"precision": "int8_weight_only", "smooth": {"alpha": 0.5}}, r"\['smooth'\] are about them"),
        ({"precision": "int8_weight_only", "activations": {"method": "mse"}}, r"\['activations'\] are about"),
        (
            {"precision": "int8_weight_only", "attention": {"projector_self": True}},
            r"\['attention'\] are about",
        ),
        (
            {"precision": "int8_weight_only", "attention": {"tower_scores": "where_possible"}},
            r"\['attention'\] are about",
        ),
        ({"attention": {"tower_scores": True}}, "'off', 'where_possible' or 'on'"),
        (
            {"precision": "fp8", "attention": {"tower_scores": "on"}},
            "integer units of CPUs, and fp8 has none",
        ),
        (
            {"precision": "int8_weight_only", "override": [{"pattern": "a", "method": "max"}]},
            r"\['override'\]",
        ),
    ],
)
def test_refuses_what_has_no_meaning(changes, message):
    """Each mistake is refused with a message about it."""
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


def test_defaults_are_the_plainest():
    """Nothing is clipped, smoothed, kept or overridden unless asked for."""
    found = recipe()
    assert (found.activations.method, found.weights.method, found.smooth.alpha) == ("max", "max", 0)
    assert not found.attention.projector_self
    assert found.attention.tower_scores == "off"
    assert found.keep == found.override == ()
    assert recipe(precision="int8_weight_only", smooth={"alpha": 0}).smooth.alpha == 0


def test_is_immutable():
    """A recipe that has been hashed stays what it is."""
    with pytest.raises(ValidationError, match="frozen"):
        recipe().smooth.alpha = 1.0


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("tower.blocks.*.mlp.down", "tower.blocks.7.mlp.down", True),
        ("tower.*", "tower.blocks.7.mlp.down", True),
        ("*.down", "tower.blocks.7.mlp.down", True),
        ("tower.blocks.?.mlp.down", "tower.blocks.17.mlp.down", False),
        ("tower.blocks.[0-3].*", "tower.blocks.2.mlp.up", True),
        ("tower.blocks", "tower.blocks.7", False),
        ("Tower.*", "tower.blocks.7", False),
    ],
)
def test_patterns_match_whole_paths(pattern, path, matches):
    """Globs cross dots, match from end to end, and case matters on every system."""
    found = recipe(
        keep=[{"pattern": pattern, "reason": "because"}], override=[{"pattern": pattern, "method": "entropy"}]
    )
    assert (found.kept_by(path) is not None) == matches
    assert (found.activations_of(path).method == "entropy") == matches


def test_the_first_match_counts():
    """Special patterns stand before general ones; what none matches has the default."""
    found = recipe(
        activations={"method": "mse"},
        keep=[{"pattern": "a.b", "reason": "first"}, {"pattern": "a.*", "reason": "second"}],
        override=[
            {"pattern": "a.b", "method": "percentile", "percentile": 99.0},
            {"pattern": "a.*", "method": "max"},
        ],
    )
    assert [found.kept_by(path).reason for path in ("a.b", "a.c")] == ["first", "second"]
    assert [found.activations_of(path).method for path in ("a.b", "a.c", "b")] == ["percentile", "max", "mse"]
    assert found.activations_of("a.b").percentile == 99.0


def test_json_is_canonical():
    """Defaults spelled out and keys in another order give the same text; a change gives another; it reads back."""
    spelled_out = {"weights": {"method": "max"}, "precision": "int8", "summary": "Mine.", "name": "mine"}
    assert QuantRecipe.model_validate(spelled_out).to_json() == recipe().to_json()
    assert recipe(smooth={"alpha": 0.5}).to_json() != recipe().to_json()
    assert QuantRecipe.model_validate(json.loads(recipe().to_json())).to_json() == recipe().to_json()
