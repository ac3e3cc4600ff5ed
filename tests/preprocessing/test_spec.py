"""The record that a manifest stores."""

from __future__ import annotations

import json

import pytest

from pargo_export.errors import ConfigError
from pargo_export.preprocessing import PreprocessSpec


def test_defaults_are_those_of_clip():
    """Without more than a size the spec pads with the CLIP mean, rounded down."""
    spec = PreprocessSpec(height=336, width=672)
    assert spec.mode == "pad"
    assert spec.mean == (0.48145466, 0.4578275, 0.40821073)
    assert spec.std == (0.26862954, 0.26130258, 0.27577711)
    assert spec.pad_color == (122, 116, 104)


def test_survives_a_manifest():
    """Written as JSON and read again it is the same spec, pad colour included."""
    spec = PreprocessSpec(mode="official-eval", height=336, width=224, mean=(0.5, 0, 1))
    stored = json.loads(spec.model_dump_json())
    assert stored["pad_color"] == [127, 0, 255]
    assert PreprocessSpec.parse(stored, source="manifest.json") == spec
    assert PreprocessSpec.model_validate_json(spec.model_dump_json()) == spec


def test_keeps_unknown_fields():
    """A field of a later version is kept."""
    spec = PreprocessSpec.parse({"height": 2, "width": 3, "gamma": 2.2}, source="manifest.json")
    assert spec.model_dump()["gamma"] == 2.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "crop"}, "mode: Input should be 'pad', 'resize', 'resize-bilinear', "),
        ({"height": 0}, "height: Input should be greater than 0"),
        ({"width": 1.5}, "width: Input should be a valid integer"),
        ({"mean": (0.5, 0.5)}, "mean.2: Field required"),
        ({"mean": (122.7, 116.7, 104.1)}, "mean.0: Input should be less than or equal to 1"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "mean.0"),
        ({"std": (0.2, 0, 0.2)}, "std.1: Input should be greater than 0"),
        ({"std": (0.2, 0.2, float("inf"))}, "std.2: Input should be a finite number"),
        ({"pad_color": [225, 225, 225]}, r"pad_color \[225, 225, 225\] is not .* \[122, 116, 104\]"),
        (
            {"mode": "official-eval", "width": 449},
            "448x448 canvas, but the model input is 336x449 .*use mode 'pad'",
        ),
        ({"mode": "official-eval", "height": 672}, "model input is 672x336"),
    ],
)
def test_refuses(change, message):
    """What contradicts itself becomes a ConfigError that names source and field."""
    with pytest.raises(ConfigError, match=f"^manifest.json: .*{message}"):
        PreprocessSpec.parse({"height": 336, "width": 336} | change, source="manifest.json")


def test_official_canvas_itself_is_allowed():
    """An input of exactly 448 x 448 sees the whole canvas."""
    assert PreprocessSpec(mode="official-eval", height=448, width=448).height == 448


def test_needs_a_size():
    """Height and width have no default."""
    with pytest.raises(ConfigError, match="height: Field required; width: Field required"):
        PreprocessSpec.parse({}, source="manifest.json")
