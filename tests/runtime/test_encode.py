"""Batches, outputs and components."""

from __future__ import annotations

import numpy as np
import pytest
from golden_cases import golden_case
from tolerances import TOLERANCES

from pargo_export.errors import ImageError, InputError


def test_runtime_computes_what_the_official_code_computed(runtime):
    """Normalised pixels become the stored visual tokens of the golden case."""
    io = golden_case("pargo_w2").io
    tokens = runtime.encode(io["images"].numpy())
    assert tokens.dtype == np.float32
    assert tokens.flags.c_contiguous
    assert np.abs(tokens - io["projected"].numpy()).max() <= TOLERANCES["golden-reference"].value


def test_attributes_describe_what_was_opened(runtime, bundle_path):
    """The runtime says what it runs, where, and from which bundle."""
    assert runtime.variant.name == "fp32"
    assert runtime.backend == "onnxruntime"
    assert runtime.bundle.path == bundle_path
    assert runtime.config == runtime.bundle.manifest.model
    assert runtime.signature.outputs[0].name == "visual_tokens"
    text = repr(runtime)
    for part in ("fp32", "pixel_values[batch, 3, 84, 84]", "visual_tokens[batch, 22, 80]", "1 thread(s)"):
        assert part in text


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_any_number_of_images_is_split_into_batches(runtime, photos, count, batch_size):
    """Full batches and a shorter last one give the tokens that each picture gives alone."""
    images = (photos * 2)[:count]
    tokens = runtime.encode(images, batch_size=batch_size)
    alone = np.concatenate([runtime.encode(image) for image in images])
    assert tokens.shape == (count, 22, 80)
    assert np.abs(tokens - alone).max() <= TOLERANCES["runtime-batching"].value


def test_different_pictures_give_different_tokens(runtime, photos):
    """No picture of a batch is mistaken for another."""
    tokens = runtime.encode(photos)
    differences = np.abs(tokens[:, None] - tokens[None]).max(axis=(2, 3))
    assert (differences[~np.eye(len(photos), dtype=bool)] > 100 * TOLERANCES["runtime-batching"].value).all()


@pytest.mark.parametrize("batch_size", [0, -1, 5])
def test_batch_size_out_of_range_is_refused(runtime, photos, batch_size):
    """The message names the largest batch that the variant was made for."""
    with pytest.raises(InputError, match=r"batch_size: found .*, expected 1 to 4"):
        runtime.encode(photos, batch_size=batch_size)


def test_results_belong_to_the_caller(runtime, photos):
    """A later call does not change an earlier result, and the input is not changed."""
    pixels = runtime.preprocess(photos[:2])
    before = pixels.copy()
    first = runtime.encode(pixels)
    kept = first.copy()
    runtime.encode(photos[2:4])
    assert np.array_equal(first, kept)
    assert np.array_equal(pixels, before)
    first += 1  # writable


def test_encode_into_fills_the_array_and_returns_it(runtime, photos):
    """The tokens are those of `encode`, in the caller's memory."""
    out = np.full((5, 22, 80), np.nan, np.float32)
    assert runtime.encode_into(photos, out) is out
    assert np.array_equal(out, runtime.encode(photos))


def test_encode_into_a_part_of_a_larger_array(runtime, photos):
    """Only the given rows are written."""
    out = np.zeros((4, 22, 80), np.float32)
    runtime.encode_into(photos[:2], out[1:3])
    assert np.array_equal(out[1:3], runtime.encode(photos[:2]))
    assert not out[[0, 3]].any()


def _read_only(shape):
    array = np.zeros(shape, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((1, 22, 80), np.float32), r"found float32\[1, 22, 80\], expected .*float32\[2, 22, 80\]"),
        (np.zeros((2, 22, 80), np.float64), r"found float64\[2, 22, 80\]"),
        (np.zeros((2, 80, 22), np.float32).transpose(0, 2, 1), "not C-contiguous"),
        (_read_only((2, 22, 80)), "read-only"),
        ([[0.0]], "found list"),
    ],
)
def test_encode_into_refuses_what_it_cannot_fill(runtime, photos, out, message):
    """Shape, dtype, layout and writability are checked before anything is computed."""
    with pytest.raises(InputError, match=message):
        runtime.encode_into(photos[:2], out)


def test_encoder_and_projector_make_the_whole(open_runtime, photos):
    """The tokens of the two parts in sequence are those of the whole graph."""
    features = open_runtime("fp32-encoder").encode(photos)
    assert features.shape == (5, 36, 64)
    tokens = open_runtime("fp32-projector").encode(features)
    whole = open_runtime("fp32").encode(photos)
    assert np.abs(tokens - whole).max() <= TOLERANCES["runtime-batching"].value


def test_projector_takes_features_of_one_image(open_runtime, photos):
    """`[N, C]` is a batch of one, also in a list."""
    features = open_runtime("fp32-encoder").encode(photos[:2])
    projector = open_runtime("fp32-projector")
    assert np.array_equal(projector.encode(features[0]), projector.encode(features[:1]))
    assert np.array_equal(projector.encode(list(features)), projector.encode(features))


@pytest.mark.parametrize("image", ["photo.png", np.zeros((84, 84, 3), np.uint8), np.zeros((1, 3, 84, 84))])
def test_projector_refuses_pictures(open_runtime, image):
    """The message says which variant takes them."""
    with pytest.raises(
        InputError, match=r"expected image features float32\[batch, 36, 64\].*component 'encoder'"
    ):
        open_runtime("fp32-projector").encode(image)


def test_uint8_graph_gives_the_tokens_of_the_float_graph(open_runtime, photos):
    """Normalisation inside the graph is the normalisation before it."""
    tokens = open_runtime("fp32-uint8").encode(photos)
    expected = open_runtime("fp32").encode(photos)
    assert np.abs(tokens - expected).max() <= TOLERANCES["runtime-uint8-graph"].value


def test_uint8_graph_refuses_normalised_pixels(open_runtime, runtime, photos):
    """The message says what to hand instead."""
    with pytest.raises(
        InputError, match=r"normalises by itself; hand the pixels, or open a variant of input 'float'"
    ):
        open_runtime("fp32-uint8").encode(runtime.preprocess(photos[0]))


def test_prepared_pixels_are_what_the_graph_takes(open_runtime, photos):
    """`prepare` follows the graph, `preprocess` is always normalised, and both can be encoded."""
    float_runtime, uint8_runtime = open_runtime("fp32"), open_runtime("fp32-uint8")
    pixels = uint8_runtime.prepare(photos[:2])
    assert pixels.dtype == np.uint8
    assert float_runtime.prepare(photos[:2]).dtype == np.float32
    assert np.array_equal(uint8_runtime.preprocess(photos[:2]), float_runtime.prepare(photos[:2]))
    for runtime in (float_runtime, uint8_runtime):
        expected = runtime.encode(photos[:2])
        assert np.array_equal(runtime.encode(pixels), expected)
        assert np.array_equal(
            runtime.run({"pixel_values": runtime.prepare(photos[:2])})["visual_tokens"], expected
        )


def test_raw_run_checks_names_and_shapes(runtime):
    """A feed that does not fit the signature is refused before the backend sees it."""
    with pytest.raises(InputError, match=r"feed has \['x'\], expected \['pixel_values'\]"):
        runtime.run({"x": np.zeros((1, 3, 84, 84), np.float32)})
    with pytest.raises(InputError, match="axis 3 differs"):
        runtime.run({"pixel_values": np.zeros((1, 3, 84, 85), np.float32)})


def test_unreadable_picture_is_named(runtime, photos, tmp_path):
    """A broken file in the middle of a list is named; one without a path by its position."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"broken\.png: not a picture"):
        runtime.encode([*photos, broken])
    with pytest.raises(ImageError, match=r"images\[5\]: not a picture"):
        runtime.encode([*photos, b"not a picture"])


def test_static_batch_of_one_runs_image_by_image(open_runtime):
    """A graph whose batch axis is fixed to 1 takes any number of images, one a run."""
    features = np.random.default_rng(0).standard_normal((3, 36, 64), np.float32)
    static = open_runtime("static")
    assert static.signature.inputs[0].shape[0] == 1
    difference = static.encode(features) - open_runtime("fp32-projector").encode(features)
    assert np.abs(difference).max() <= TOLERANCES["runtime-batching"].value
