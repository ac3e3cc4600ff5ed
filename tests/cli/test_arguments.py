from __future__ import annotations

from typing import get_args

import click
import pytest

from pargo_export.bundle import InputKind, Limits
from pargo_export.cli import arguments
from pargo_export.cli.commands.calibrate import command as calibrate_command
from pargo_export.cli.commands.onnx import command
from pargo_export.cli.commands.quantize import command as quantize_command
from pargo_export.graph.options import COMPONENTS, PRECISIONS, ExportOptions
from pargo_export.preprocessing import PreprocessMode
from pargo_export.quantization import analyze, options
from pargo_export.quantization.calibrate import CalibrateOptions
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


def test_choices_of_quantize_are_those_of_the_library():
    """So it is for calibrate and quantize, whose words are translated."""
    assert [flag.replace("_", "-") for flag in arguments.PRECISION_FLAGS] == list(options.PRECISIONS)
    assert tuple(arguments.FLOAT_PRECISIONS.values()) == get_args(options.FloatPrecision)
    assert get_args(options.TargetName) == arguments.TARGETS
    assert set(arguments.LIMITS.values()) == set(Limits.model_fields)
    defaults = CalibrateOptions()
    given = {param.name: param.default for param in calibrate_command.params}
    for name in ("num_images", "num_evaluation", "seed", "smoothing", "name"):
        assert given[name] == getattr(defaults, name), name
    given = {param.name: param.default for param in quantize_command.params}
    for name in ("target", "calibration"):
        assert given[name] == getattr(options.QuantizeOptions(), name), name
    assert given["threshold"] == analyze.analyze.__kwdefaults__["threshold"]


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


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("3/4", (3, 4))])
def test_shard(text, shard):
    """A part and the number of parts."""
    assert arguments.parse_shard(None, None, text) == shard


@pytest.mark.parametrize("text", ["", "1", "4/4", "0/0", "-1/4", "1/", "a/b"])
def test_wrong_shard(text):
    """A part that there is not is refused, with an example."""
    with pytest.raises(click.BadParameter, match="from 0/4 to 3/4"):
        arguments.parse_shard(None, None, text)


def test_limits():
    """Words become fields; no option is no limits at all."""
    assert arguments.parse_limits(None, None, ("cosine=1", "sqnr=.5", "max_abs=2.")) == {
        "mean_cosine": 1.0,
        "sqnr_db": 0.5,
        "max_abs": 2.0,
    }
    assert arguments.parse_limits(None, None, ()) is None


@pytest.mark.parametrize("text", ["cosine=", "cosine=nan", "=1", "mean_cosine=1", "sqnr=1dB"])
def test_wrong_limits(text):
    """An unknown word, or no number, is refused with the words that there are."""
    with pytest.raises(click.BadParameter, match="worst_cosine=X"):
        arguments.parse_limits(None, None, (text,))
