from __future__ import annotations

import numpy as np
import pytest
from golden_cases import golden_case, golden_model

from pargo_export.checkpoint.presets import preset
from pargo_export.config import ModelConfig
from pargo_export.inspect import draw_masks, mask_text

TINY = preset("tiny")
FULL = preset("eva02-l-336-internlm2-7b")


def _cells(line):
    return line[17:]


def test_small_masks_are_drawn_exactly():
    """Where the terminal is wide enough, one character is one cell of the mask of the official code."""
    io = golden_case("pargo_w2").io
    text = mask_text(golden_model("pargo_w2").config, width=200)
    for drawing, stored in zip(
        text.split("\n\n"), (io["cross_attention_mask"][0, 0], io["self_attention_mask"]), strict=False
    ):
        keep = stored.numpy() == 0
        lines = {_cells(line) for line in drawing.splitlines()[1:]}
        assert lines == {"".join("█" if cell else "·" for cell in row) for row in keep}


def test_text_of_the_tiny_model():
    """Partial tokens form a staircase, global tokens see everything and share a line."""
    lines = mask_text(TINY).splitlines()
    assert lines[0] == "cross-attention, every layer: 22 query tokens x 36 image tokens, 22.7% kept"
    assert lines[1] == "partial 0        ██" + "·" * 34
    assert lines[18] == "partial 17       " + "·" * 34 + "██"
    assert lines[19] == " global 18-21    " + "█" * 36
    assert lines[21] == "self-attention, every layer: 22 query tokens x 22 query tokens, 70.2% kept"
    assert lines[22] == "partial 0-17     " + "█" * 18 + "·" * 4


@pytest.mark.parametrize("width", [80, 120, 200])
def test_large_masks_fit_the_terminal(width):
    """The official 304 x 576 mask is shrunk to the width, in few lines, and keeps its global rows."""
    lines = mask_text(FULL, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 40
    assert " global 288-303  " + "█" * 20 in "\n".join(lines)


def test_shrunk_blocks_say_what_they_hide():
    """A block that is seen in part is drawn as such, never as seen or hidden."""
    assert "▒" in mask_text(FULL)
    assert "▒" not in mask_text(TINY)


def test_layers_with_windows_of_their_own_are_drawn_apart():
    """The cascaded windows of the paper give one self-attention mask for each kind of layer."""
    values = TINY.model_dump()
    values["projector"]["partial_attention_windows"] = (3, 3, None, None)
    text = mask_text(ModelConfig.parse(values, source="test"))
    assert "self-attention, layers 0, 1: " in text
    assert "self-attention, layers 2, 3: " in text


def test_layers_without_cross_attention_are_not_named():
    """The title names the layers that have the mask."""
    assert "cross-attention, layers 0, 2: " in mask_text(golden_model("pargo_w4_freq2").config)


@pytest.mark.parametrize("name", ["tiny-linear", "tiny-mlp"])
def test_no_masks_without_queries(name):
    """A projector without attention has no masks, in text and picture."""
    assert "no masks" in mask_text(preset(name))
    assert draw_masks(preset(name)) is None


def test_picture_shows_every_cell():
    """Every cell of the mask is a square of the picture: blue partial, red global, grey hidden."""
    picture = np.asarray(draw_masks(TINY))
    scale = 1152 // 36
    for row, column, colour in ((0, 0, (31, 119, 180)), (0, 2, (238, 238, 242)), (18, 35, (214, 96, 77))):
        pixel = picture[32 + row * scale + scale // 2, 16 + column * scale + scale // 2]
        assert tuple(pixel) == colour


def test_qformer_has_global_rows_only():
    """Without partial tokens every query sees everything."""
    drawing = mask_text(preset("tiny-qformer")).split("\n\n")[0].splitlines()
    assert drawing[1:] == [" global 0-7      " + "█" * 36]
