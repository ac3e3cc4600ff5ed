"""What is expected of each version of TensorRT."""

from __future__ import annotations

from itertools import groupby

import pytest

from pargo_export.engine.ladder import LADDER, find_rung
from pargo_export.graph.options import TARGET_ATTENTION
from pargo_export.trt.module import LOWEST_VERSION, load_tensorrt


@pytest.mark.parametrize(
    ("flavor", "version", "has_operator", "plugin"),
    [
        ("tensorrt", "10.3.0", False, "never"),
        ("tensorrt", "10.13.3.9", False, "always"),
        ("tensorrt", "10.14.1.48", True, "always"),
        ("tensorrt", "10.16.1.11", True, "on request"),
        ("tensorrt", "11.4.1.4", True, "on request"),
        ("rtx", "1.7.1.116", True, "on request"),
    ],
)
def test_a_version_is_on_the_rung_below(flavor, version, has_operator, plugin):
    """The Attention operator comes with 10.14; how plugins are taken changes with 10.7 and 10.15."""
    rung = find_rung(flavor, version)
    assert ("attention_op" in rung.forms, rung.plugin) == (has_operator, plugin)


def test_the_ladder_begins_where_support_begins():
    """Every supported version has a rung, and older ones have none."""
    for flavor, rungs in groupby(LADDER, key=lambda rung: rung.flavor):
        assert min(rung.since for rung in rungs) == LOWEST_VERSION[flavor]
    with pytest.raises(ValueError, match=r"10\.2"):
        find_rung("tensorrt", "10.2.0")


def test_every_target_has_a_form_that_every_version_takes():
    """What is exported by default for a target is parsed by the oldest TensorRT, as far as is known."""
    for target in ("cuda", "orin", "thor", "rtx"):
        assert all(TARGET_ATTENTION[target] in rung.forms for rung in LADDER)


def test_the_installed_parser_has_what_its_rung_says():
    """RTX's module has the flag for plugins and the layer for Attention."""
    pytest.importorskip("tensorrt_rtx")
    tensorrt = load_tensorrt("rtx")
    rung = find_rung("rtx", tensorrt.version)
    assert rung.plugin == "on request"
    assert hasattr(tensorrt.module.OnnxParserFlag, "ENABLE_PLUGIN_OVERRIDE")
    assert hasattr(tensorrt.module, "IAttentionInputLayer") == ("attention_op" in rung.forms)
