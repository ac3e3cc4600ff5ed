"""From a PyTorch module to ONNX."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from graph.exports import source_model

from pargo_export.errors import ExportError
from pargo_export.graph.component import ComponentModule, boundary_names, component_signature
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.translate import translate
from pargo_export.rewrite.apply import deploy_module


def translate_micro(attention="fused", **choices):
    """Translate the smallest model without any rewrite."""
    options = ExportOptions(attention=attention, **choices)
    model = source_model("micro")
    module = ComponentModule(deploy_module(model, [], options.attention_form)[0], options).eval()
    boundaries = boundary_names(model.config, options, folded=False)
    return translate(module, options, component_signature(model.config, options), boundaries)


def test_outputs_are_the_signature_then_the_boundaries():
    """Names are kept through the translation, and the functions in use come along."""
    model = translate_micro()
    assert [value.name for value in model.graph.inputs] == ["pixel_values"]
    names = ["visual_tokens", "image_features", "query_layer_0", "query_layer_1"]
    assert [value.name for value in model.graph.outputs] == names
    functions = {identifier[:2] for identifier in model.functions}
    assert functions == {("pargo", "PartialGlobalAttention"), ("pargo", "BlockDiagonalAttention")}
    assert model.opset_imports == {"": 20, "pargo": 1}


def test_an_exporter_failure_is_an_export_error(monkeypatch):
    """The message is the exporter's first line, without its report of many pages."""

    def fail(*_args, **_kwargs):
        raise torch.onnx.errors.OnnxExporterError("cannot do it\na long report\nwith /paths/to/files.py")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError) as info:
        translate_micro()
    assert str(info.value) == "PyTorch could not export the model: cannot do it"


def test_no_program_is_an_export_error(monkeypatch):
    """An exporter that returns nothing is not taken for success."""
    monkeypatch.setattr(torch.onnx, "export", lambda *_args, **_kwargs: None)
    with pytest.raises(ExportError, match="PyTorch returned no ONNX program"):
        translate_micro()


def test_silence_lasts_no_longer_than_the_translation(monkeypatch):
    """Log levels and warning filters are as before, also after a failure."""
    names = ("torch.onnx", "onnxscript")
    seen = []

    def fail(*_args, **_kwargs):
        seen.extend(logging.getLogger(name).level for name in names)
        warnings.warn("old", FutureWarning, stacklevel=1)
        raise torch.onnx.errors.OnnxExporterError("no")

    monkeypatch.setattr(torch.onnx, "export", fail)
    for name, level in zip(names, (logging.DEBUG, logging.WARNING), strict=True):
        monkeypatch.setattr(logging.getLogger(name), "level", level)
    filters = list(warnings.filters)
    with pytest.raises(ExportError):
        translate_micro()
    assert seen == [logging.ERROR, logging.ERROR]
    assert [logging.getLogger(name).level for name in names] == [logging.DEBUG, logging.WARNING]
    assert list(warnings.filters) == filters
