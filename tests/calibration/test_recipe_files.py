"""Built-in recipes load, and a mistake in a file is explained."""

from __future__ import annotations

import pytest

from pargo_calibration import RecipeError, list_recipes, load_recipe

MINIMAL = 'name = "mine"\nsummary = "Mine."\nprecision = "int8"\n'


def test_built_in_recipes():
    """The names that the command line offers, sorted."""
    assert list_recipes() == (
        "fp8",
        "int8",
        "int8-entropy",
        "int8-max",
        "int8-mse",
        "int8-no-smooth",
        "int8-percentile",
        "int8-weight-only",
    )


@pytest.mark.parametrize("name", list_recipes())
def test_every_built_in_recipe_is_what_its_name_says(name):
    """Name, precision and method agree with the name of the file; the patch embedding is kept, with a reason."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    expected = {"fp8": "fp8", "int8-weight-only": "int8_weight_only"}.get(name, "int8")
    assert recipe.precision == expected
    assert recipe.kept_by("tower.patch_embedding").reason.endswith(".")
    assert recipe.kept_by("tower.blocks.0.mlp.down") is None
    method = name.removeprefix("int8-")
    default = "output_mse" if recipe.precision == "int8" else "max"
    assert recipe.activations.method == (
        method if method in {"entropy", "max", "mse", "percentile"} else default
    )
    assert recipe.attention.tower_scores == ("where_possible" if recipe.precision == "int8" else "off")
    smoothed = recipe.precision == "int8" and name != "int8-no-smooth"
    assert (recipe.smooth.alpha > 0) == smoothed


def test_int8_without_smoothing_is_int8_otherwise():
    """The recipe that shows what smoothing is worth differs from the default one in nothing else."""
    int8, plain = load_recipe("int8"), load_recipe("int8-no-smooth")
    assert plain.model_copy(update={key: getattr(int8, key) for key in ("name", "summary", "smooth")}) == int8


def test_a_path_is_read(tmp_path):
    """Anything that ends in .toml, or has a folder in it."""
    path = tmp_path / "int8.toml"
    path.write_text(MINIMAL + "[smooth]\nalpha = 0.25\n")
    for found in (load_recipe(path), load_recipe(str(path))):
        assert (found.name, found.smooth.alpha) == ("mine", 0.25)
    other = tmp_path / "int8"
    other.write_text(MINIMAL)
    assert load_recipe(other).name == "mine"


@pytest.mark.parametrize("name", ["int9", "", "INT8"])
def test_an_unknown_name_lists_the_valid_ones(name):
    """The message is a list to choose from."""
    with pytest.raises(
        RecipeError, match=rf"recipe '{name}' is unknown; choose one of fp8, int8, int8-entropy"
    ):
        load_recipe(name)


@pytest.mark.parametrize("name", ["missing.toml", "missing/int8", "../recipes/int8"])
def test_a_missing_file_is_reported(tmp_path, name):
    """A path is never taken for a name."""
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "no TOML"),
        (MINIMAL + "alpha = 1\n", "alpha: unknown key; valid keys: name, summary, precision, activations"),
        (MINIMAL + "[smooth]\nalhpa = 1\n", "smooth.alhpa: unknown key; valid keys: alpha$"),
        (
            MINIMAL + '[[keep]]\npattern = "a"\nreason = "b"\nwhy = "c"\n',
            "keep.0.why: unknown key; valid keys: pattern, reason$",
        ),
        (
            MINIMAL + '[[override]]\npattern = "a"\nmethod = "max"\nx = 1\n',
            "override.0.x: unknown key; valid keys: method, percentile, pattern$",
        ),
        (MINIMAL + "[weights]\nmethod = 1\n", "weights.method: Input should be 'max' or 'mse'"),
        (MINIMAL + '[activations]\nmethod = "percentile"\n', "activations: method is 'percentile'"),
        ('name = "a"\n', "summary: Field required; precision: Field required"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, message):
    """The file, the place and what would have been right, all mistakes at once."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_bytes_that_are_no_text_are_reported(tmp_path):
    """A binary file is refused like any other that is no recipe."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(path)
