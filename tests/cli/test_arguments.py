from __future__ import annotations

from typing import get_args

import click
import pytest

from pargo_export.bundle import InputKind
from pargo_export.cli import arguments
from pargo_export.cli.commands.onnx import command
from pargo_export.graph.options import COMPONENTS, PRECISIONS, ExportOptions
from pargo_export.preprocessing import PreprocessMode
from pargo_export.rewrite.attention_forms import ATTENTION_FORMS
from pargo_export.rewrite.registry import TARGETS


def test_choices_are_those_of_the_library():
    """What the command line offers is what the library knows, and the defaults are the same."""
    defaults = ExportOptions()
    assert ("auto", *ATTENTION_FORMS) == arguments.ATTENTIONS
    assert COMPONENTS == arguments.COMPONENTS
    assert get_args(PreprocessMode) == arguments.MODES
    assert TARGETS == arguments.TARGETS
    assert tuple(PRECISIONS) == arguments.PRECISIONS
    assert get_args(InputKind) == arguments.INPUTS
    given = {param.name: param.default for param in command.params}
    for name in ("attention", "component", "input_kind", "max_batch", "preprocess", "target"):
        assert given[name] == getattr(defaults, name), name
    assert PRECISIONS[given["precision"]] == defaults.precision


@pytest.mark.parametrize(
    ("text", "grid"), [("1", (1, 1)), ("4", (2, 2)), ("6", (1, 6)), ("2x3", (2, 3)), (None, None)]
)
def test_tiles(text, grid):
    """Rows and columns, or a number: a square one is a square grid, any other one row."""
    assert arguments.parse_tiles(None, None, text) == grid


@pytest.mark.parametrize("text", ["", "0", "2x", "x2", "2x0", "-1", "2 x 2", "two"])
def test_wrong_tiles(text):
    """Anything else is refused, with what is expected."""
    with pytest.raises(click.BadParameter, match="2x3"):
        arguments.parse_tiles(None, None, text)


@pytest.mark.parametrize(
    ("text", "names"), [("a,b", ("a", "b")), (" a , b,", ("a", "b")), ("", ()), (None, None)]
)
def test_names(text, names):
    """Names are separated by commas; no names are an empty list, no option is none at all."""
    assert arguments.parse_names(None, None, text) == names
