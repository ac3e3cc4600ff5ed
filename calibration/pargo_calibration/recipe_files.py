"""Recipes by name or from a TOML file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pargo_calibration.errors import RecipeError
from pargo_calibration.recipe import QuantRecipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["list_recipes", "load_recipe"]

_FOLDER = Path(__file__).with_name("recipes")


def list_recipes() -> tuple[str, ...]:
    """Names of the built-in recipes, sorted."""
    return tuple(
        sorted(found.name.removesuffix(".toml") for found in _FOLDER.iterdir() if _is_toml(found.name))
    )


def load_recipe(name_or_path: str | os.PathLike[str]) -> QuantRecipe:
    """Load a built-in recipe by its name, or any other from its TOML file.

    What ends in `.toml` or has a folder in it is a path.

    Raises:
        RecipeError: There is no such recipe, or it is no valid one.
    """
    text = os.fspath(name_or_path)
    if _is_toml(text) or Path(text).name != text:
        return _parse(_read(Path(text), text), text)
    if text not in list_recipes():
        raise RecipeError(
            f"recipe {text!r} is unknown; choose one of {', '.join(list_recipes())}, or pass the path of a .toml file"
        )
    return _parse((_FOLDER / f"{text}.toml").read_text("utf-8"), f"recipe {text}")


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{source}: cannot be read ({error}); pass a .toml file or one of {list_recipes()}"
        ) from error


def _parse(text: str, source: str) -> QuantRecipe:
    try:
        return QuantRecipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: no TOML ({error}); correct it") from error
    except ValidationError as error:
        problems = "; ".join(_problem(dict(item)) for item in error.errors(include_url=False))
        raise RecipeError(f"{source}: {problems}") from error


def _problem(item: dict[str, Any]) -> str:
    """Return one line for one mistake, with the keys that would have been right."""
    where = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; valid keys: {', '.join(_table_of(item['loc']).model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _table_of(location: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model of the table that holds the key at `location`."""
    table: type[BaseModel] = QuantRecipe
    for key in location[:-1]:
        if isinstance(key, str):
            annotation: Any = table.model_fields[key].annotation
            # A list of tables is tuple[Rule, ...].
            table = getattr(annotation, "__args__", (annotation,))[0]
    return table
